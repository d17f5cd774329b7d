//! The part of the documentation that is written from code.

pub(crate) mod objects;

use std::fmt::Write as _;

use director::{Code, STEERING_HEADERS};
use media::PRIVATE_DOMAINS;
use request::{Field, Holds, Shape};

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
        let after = match code.status().as_u16() {
            429 => "1 to 60 s, as measured".to_owned(),
            _ => code.retry_after().map(|after| format!("{} s", after.as_secs())).unwrap_or_default(),
        };
        page += &format!("| {} | `{}` | {after} | {} |\n", code.status().as_u16(), code.as_str(), code.meaning());
    }
    page
}

/// What is read of a request: fields, headers and hosts, from the tables that the reading is made of.
pub(crate) fn reading() -> String {
    let mut page = String::from(
        "# What is read, and what is refused\n\n\
         <!-- Written by `cargo xtask codegen` from crates/request/fields.tsv, crates/director/src/steering.rs and\n     \
         crates/media/src/address.rs. Do not edit. -->\n\n\
         ## Fields at the root of a body\n\n\
         Bodies are *open* or *closed*. In an open one a field that is not listed is ignored here, as engines ignore what they do not know; what\n\
         an engine acts on is listed. A closed one is an engine's own interface, where each release acts on other fields: one that is not listed\n\
         is refused with its name, unless the model's owner allows `UnlistedFields`. What is empty (`null`, `false`, `\"\"`, `[]`, `{}`) is not there.\n\n\
         | shape | is |\n|---|---|\n",
    );
    for shape in Shape::ALL {
        let is = match shape {
            Shape::Anywhere => "open bodies and bags, however deep",
            shape if shape.is_closed() => "closed",
            _ => "open",
        };
        _ = writeln!(page, "| `{}` | {is} |", shape.as_str());
    }
    page += "\nWhat a field holds says what becomes of it:\n\n| holds | what becomes of it |\n|---|---|\n";
    for holds in Holds::ALL {
        _ = writeln!(page, "| `{}` | {} |", holds.as_str(), becomes(*holds));
    }
    page += "\nSettings are many and harmless; all other fields, with where they were read:\n\n| field | holds | shapes | source |\n|---|---|---|---|\n";
    let shapes = |field: &Field| {
        let of = Shape::ALL.iter().filter(|shape| field.is_of(**shape)).map(|shape| shape.as_str());
        of.collect::<Vec<_>>().join(", ")
    };
    for field in Field::all().iter().filter(|field| field.holds != Holds::Setting) {
        _ = writeln!(page, "| `{}` | {} | {} | {} |", field.name, field.holds.as_str(), shapes(field), field.source);
    }
    let settings: Vec<String> = Field::all()
        .iter()
        .filter(|field| field.holds == Holds::Setting)
        .map(|field| format!("`{}`", field.name))
        .collect();
    _ = writeln!(page, "\nSettings: {}.", settings.join(", "));
    page += "\n## Headers that no client sets\n\n\
             Taken out of every request, over both edges, in any case and with underscores as well; `*` stands for any end.\n\n\
             | header | who acts on it |\n|---|---|\n";
    for (name, who) in STEERING_HEADERS {
        _ = writeln!(page, "| `{name}` | {who} |");
    }
    page += "\n## Hosts that are inside\n\n\
             Media from them is refused unless `allowedHosts` names them. Addresses are inside that IANA's special-purpose registries do not call\n\
             globally reachable, in every form that hides one in another, and 168.63.129.16, which answers machines of Azure. So are names\n\
             without a dot, names whose last label is no top-level domain (`kubernetes.default`, `10-0-0-1.serving.pod`), names with a label\n\
             `svc` or `pod` after their second, what stands below `--private-domain`, and what stands below these. A namespace that is called like a top-level domain\n\
             (`redis.dev`) looks public: pickers in a pod take the cluster's own domain from resolv.conf, and `--private-domain dev` closes the rest:\n\n\
             | domain | who says so |\n|---|---|\n";
    for (domain, who) in PRIVATE_DOMAINS {
        _ = writeln!(page, "| `{domain}` | {who} |");
    }
    page
}

const fn becomes(holds: Holds) -> &'static str {
    match holds {
        Holds::Model => "requests are routed by it",
        Holds::Stream => "read",
        Holds::Modalities => "what the answer is to be",
        Holds::Salt => "keeps what caches are believed to hold apart, as engines keep their caches",
        Holds::Previous => "goes to the server that made it",
        Holds::Messages | Holds::Content | Holds::Documents => "read for text and media",
        Holds::Text | Holds::Words => "text; looked through for placeholders of media",
        Holds::Image => "a picture: counted, limited, its URL held against the policy",
        Holds::Audio => "a sound, likewise",
        Holds::Video => "a video, likewise",
        Holds::File => "media of which the content tells what it is, likewise",
        Holds::Setting => "passed on, not looked into",
        Holds::Bag => "read with the same table; the model is not to be named in it",
        Holds::Embeds => "refused unless `Embeds` is allowed",
        Holds::Processor => "refused unless `ProcessorArguments` is allowed",
        Holds::Internal => "refused unless `EngineInternals` is allowed",
        Holds::Shared => "refused unless `SharedUUIDs` is allowed",
    }
}
