//! What is written down of a prompt.

use super::*;
use crate::Piece;

fn prompt_at(path: &str, body: &str) -> Prompt {
    scan_at(path, body.as_bytes()).unwrap().prompt
}

fn prompt(body: &str) -> Prompt {
    prompt_at("/v1/chat/completions", body)
}

/// How many pieces at their beginning two prompts have in common.
fn common(one: &Prompt, other: &Prompt) -> usize {
    one.pieces.iter().zip(&other.pieces).take_while(|(one, other)| one == other).count()
}

fn long(word: &str) -> String {
    format!("{word} ").repeat(3000 / (word.len() + 1))
}

const PICTURE: &str = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#;

#[test]
fn a_conversation_goes_on_where_it_was() {
    let (first, answer) = (long("hello"), long("yes"));
    let begun = prompt(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{first}"}}]}}"#));
    let next = prompt(&format!(
        r#"{{"messages":[{{"content":"{first}","role":"user"}},{{"role":"assistant","content":"{answer}"}},{{"role":"user","content":"and?"}}],"model":"m"}}"#
    ));
    assert_eq!((begun.pieces.len(), common(&begun, &next)), (2, 2));
    assert!(next.pieces.len() > 2);
}

#[test]
fn tools_and_system_stand_first_wherever_they_stand_in_the_body() {
    let (tools, system, text) = (long("tool"), long("brief"), long("hello"));
    let tools = format!(r#""tools":[{{"type":"function","function":{{"name":"f","description":"{tools}"}}}}]"#);
    let messages = format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#);
    let system = format!(r#""system":"{system}""#);
    let orders = [[&tools, &system, &messages], [&messages, &tools, &system], [&system, &messages, &tools]];
    let bodies = orders.map(|[a, b, c]| format!(r#"{{"model":"m",{a},{b},{c}}}"#));
    let [one, other, last] = bodies.map(|body| prompt_at("/v1/messages", &body));
    assert_eq!(one, other);
    assert_eq!(one, last);
    assert!(one.pieces.len() >= 6, "{one:?}");
}

#[test]
fn media_stand_where_they_do_among_the_texts() {
    let at =
        |content: &str| prompt(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{content}]}}]}}"#));
    let text = r#"{"type":"text","text":"what is this?"}"#;
    let media = |prompt: &Prompt| prompt.pieces.iter().position(|piece| matches!(piece, Piece::Media(0)));
    let (after, before) = (at(&format!("{text},{PICTURE}")), at(&format!("{PICTURE},{text}")));
    assert_eq!((media(&after), media(&before)), (Some(1), Some(0)));
    assert_ne!(at(&format!(r#"{text},"x",{PICTURE}"#)), at(&format!(r#"{text}, {PICTURE},"x""#)));
    // Two texts are not one.
    assert_ne!(at(&format!(r#""ab","c",{PICTURE}"#)).pieces, at(&format!(r#""a","bc",{PICTURE}"#)).pieces);
}

#[test]
fn a_salt_keeps_prompts_apart_and_calls_of_tools_count_without_a_place() {
    let salted = |salt: &str| prompt(&format!(r#"{{"model":"m","cache_salt":"{salt}","messages":[]}}"#)).salt;
    assert_ne!(salted("a"), salted("b"));
    assert!(salted("a").is_some() && prompt(r#"{"model":"m"}"#).salt.is_none());
    let called = prompt(
        r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}],"content":"x"}]}"#,
    );
    assert_eq!(called.pieces, []);
    assert!(called.rest > 10, "{called:?}");
}

#[test]
fn another_key_tells_of_nothing() {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, long("hello"));
    let with = |key| {
        let mut scanner = Scanner::with_key(&CHAT, Limits::default(), key).unwrap();
        scanner.feed(body.as_bytes()).unwrap();
        scanner.finish().unwrap().prompt
    };
    assert_eq!(with(1), with(1));
    assert_eq!(common(&with(1), &with(2)), 0);
}

/// Vectors are made of each text, and ranks of each document: none stands before another.
#[test]
fn what_is_read_one_by_one_is_no_prompt_and_counts_as_work() {
    let (one, other) = (long("one"), long("other"));
    let documents = format!(r#"{{"model":"m","query":"which?","documents":["{one}","{other}"]}}"#);
    let inputs = format!(r#"{{"model":"m","input":["{one}","{other}"]}}"#);
    let prompts = format!(r#"{{"model":"m","prompt":["{one}","{other}"]}}"#);
    for (path, body) in [("/v1/rerank", documents), ("/v1/embeddings", inputs), ("/v1/completions", prompts)] {
        let Prompt { pieces, rest, .. } = prompt_at(path, &body);
        assert!(pieces.is_empty() && rest >= (one.len() + other.len()) as u64, "{path}: {pieces:?}, {rest}");
    }
    let tokens = prompt_at("/v1/completions", r#"{"model":"m","prompt":[1,2,3]}"#);
    assert_eq!((tokens.pieces.len(), tokens.rest), (0, 12), "a token is some four bytes");
}
