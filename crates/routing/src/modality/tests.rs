use super::*;

#[test]
fn a_set_is_written_in_a_fixed_order() {
    let set: ModalitySet = [Modality::Video, Modality::Text, Modality::Image].into_iter().collect();
    assert_eq!(set.to_string(), "text+image+video");
    assert_eq!(set.in_words(), "text, image and video");
    assert_eq!(ModalitySet::EMPTY.to_string(), "-");
}

#[test]
fn a_list_is_read_with_spaces_capitals_and_empty_items() {
    assert_eq!(ModalitySet::parse_list(" Text, image,,").unwrap().to_string(), "text+image");
    assert_eq!(ModalitySet::parse_list("").unwrap(), ModalitySet::EMPTY);
}

#[test]
fn an_unknown_word_is_named() {
    let error = ModalitySet::parse_list("text,smell").unwrap_err();
    assert_eq!(error.to_string(), r#"unknown modality "smell"; expected text, image, audio, video or embedding"#);
}
