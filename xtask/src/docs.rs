//! The part of the documentation that is written from code.

use director::Code;

/// Every code of an error, in the order of their statuses.
pub(crate) fn errors() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         <!-- Written by `cargo xtask codegen` from crates/director/src/code.rs. Do not edit. -->\n\n\
         What Thalamus itself refuses it refuses in OpenAI's shape, and under `/v1/messages` in Anthropic's, the same over ext_proc and over\n\
         HTTP. What a model server answers, whatever its status, passes as it is.\n\n\
         ```json\n\
         {\"error\": {\"message\": \"model \\\"chat\\\" takes text and image, not audio\", \"type\": \"invalid_request_error\",\n  \
                    \"param\": \"messages[1].content[1]\", \"code\": \"unsupported_modality\"}}\n\
         {\"type\": \"error\", \"error\": {\"type\": \"not_found_error\", \"message\": \"the model \\\"chatt\\\" does not exist; did you mean \\\"chat\\\"?\",\n  \
                                     \"param\": \"model\", \"code\": \"model_not_found\"}}\n\
         ```\n\n\
         `message` says what is wrong and what would be taken, `param` points at the field or the part, `code` is stable: it is also the label\n\
         `reason` of `thalamus_picker_rejections_total`, or, once an endpoint was chosen, of `thalamus_picker_failures_total`. Where trying again may help, `retry-after` says when.\n\n\
         | status | code | retry-after | when |\n|---|---|---|---|\n",
    );
    let mut codes: Vec<Code> = Code::ALL.to_vec();
    codes.sort_by_key(|code| code.status());
    for code in codes {
        let after = code.retry_after().map(|after| format!("{} s", after.as_secs())).unwrap_or_default();
        page += &format!("| {} | `{}` | {after} | {} |\n", code.status().as_u16(), code.as_str(), code.meaning());
    }
    page
}
