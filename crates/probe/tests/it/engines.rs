//! What each engine says, and what is made of it. Answers of engines other than vLLM are of the shapes that their sources have.

use axum::routing::{get, post};
use axum::{Json, Router};
use modelserver_sim::{Options, Sim};
use probe::Probed;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{at, probe, serve, takes};

/// vLLM as the simulator has it, which is held against recordings of the real one.
async fn vllm(models: &[&str]) -> Probed {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = at(listener.local_addr().unwrap());
    let models = models.iter().map(|model| model.parse().unwrap()).collect();
    let options = Options { name: "sim".into(), models, latency: std::time::Duration::ZERO, slots: 1 };
    tokio::spawn(Sim::new(options).serve(listener, CancellationToken::new()));
    probe(&server).await.unwrap()
}

/// What is found out where these paths answer so.
async fn found(answers: &[(&'static str, Value)]) -> Probed {
    let mut router = Router::new();
    // Operations, as SGLang mounts them whatever its model can do.
    for path in ["/v1/chat/completions", "/v1/embeddings"] {
        router = router.route(path, post(|| std::future::ready("{}")));
    }
    for (path, answer) in answers {
        let answer = answer.clone();
        router = router.route(path, get(move || std::future::ready(Json(answer))));
    }
    probe(&serve(router).await).await.unwrap()
}

fn list(owned_by: &str, entries: &[Value]) -> (&'static str, Value) {
    let entries = entries.iter().cloned().map(|mut entry| {
        entry["owned_by"] = owned_by.into();
        entry
    });
    ("/v1/models", json!({"object": "list", "data": entries.collect::<Vec<_>>()}))
}

#[tokio::test]
async fn vllm_is_asked_for_each_modality_and_says_its_limits() {
    let found = vllm(&["m=text,image<=4:text:chat completions,tokenize:4096"]).await;
    assert_eq!(found.found.what(), "vLLM 0.32.0");
    assert_eq!(
        takes(&found),
        ["m: text+image not audio+video+embedding for chat completions, tokenize, context 4096, image ≤ 4"]
    );
    assert!(found.doubts.is_empty(), "{:?}", found.doubts);
    let whisper = vllm(&["w=audio<=1:text:transcriptions,tokenize"]).await;
    assert_eq!(
        takes(&whisper),
        ["w: audio not image+video+embedding for transcriptions, realtime, tokenize, audio ≤ 1"]
    );
    let text = vllm(&["t=text:text:completions,tokenize"]).await;
    assert_eq!(takes(&text), ["t: text not image+audio+video+embedding for completions, tokenize, -"]);
}

#[tokio::test]
async fn an_adapter_takes_what_its_model_does_and_another_name_of_a_model_as_well() {
    let entry =
        |id: &str, root: &str, parent: Value| json!({"id": id, "root": root, "parent": parent, "max_model_len": 99});
    let entries = [
        entry("base", "/models/a", Value::Null),
        entry("lora", "/adapters/b", json!("base")),
        entry("alias", "/models/a", Value::Null),
        entry("lost", "/adapters/c", json!("nobody")),
    ];
    let (path, answer) = list("vllm", &entries);
    let refusal =
        json!({"error": {"message": "base is not a multimodal model", "type": "BadRequestError", "code": 400}});
    let refuse = move || std::future::ready((axum::http::StatusCode::BAD_REQUEST, Json(refusal)));
    let router =
        Router::new().route(path, get(move || std::future::ready(Json(answer)))).route("/tokenize", post(refuse));
    let found = probe(&serve(router).await).await.unwrap();
    let of_base = "- not image+audio+video+embedding for ?, context 99";
    assert_eq!(
        takes(&found),
        [
            format!("alias: {of_base}"),
            format!("base: {of_base}"),
            format!("lora: {of_base}"),
            "lost: - not - for ?, context 99".into()
        ]
    );
    assert_eq!(found.found.models["lora"].parent.as_deref(), Some("base"));
}

#[tokio::test]
async fn sglang_says_it_in_flags() {
    let models = list("sglang", &[json!({"id": "vl", "root": "Qwen/VL", "max_model_len": 32768})]);
    let server = json!({"version": "0.5.23", "limit_mm_data_per_request": {"image": 3}, "api_key": "secret", "enable_multimodal": null});
    let info = json!({"is_generation": true, "has_image_understanding": true, "has_audio_understanding": false});
    let newer = found(&[models.clone(), ("/model_info", info), ("/server_info", server.clone())]).await;
    assert_eq!(newer.found.what(), "SGLang 0.5.23");
    assert_eq!(takes(&newer), ["vl: text+image not audio+embedding for chat completions, context 32768, image ≤ 3"]);
    assert_eq!(newer.doubts, ["whether it takes video: this release of SGLang does not say"]);
    let of_text = json!({"is_generation": true, "has_image_understanding": false, "has_audio_understanding": false});
    let older = found(&[models.clone(), ("/get_model_info", of_text)]).await;
    assert_eq!(takes(&older), ["vl: text not image+audio+video+embedding for chat completions, context 32768"]);
    let embeds = found(&[models, ("/get_model_info", json!({"is_generation": false}))]).await;
    assert_eq!(takes(&embeds), ["vl: text not embedding for embeddings, context 32768"]);
    assert!(!format!("{newer:?}{older:?}").contains("secret"));
}

#[tokio::test]
async fn llama_cpp_says_it_in_its_props_and_answers_to_any_name() {
    let props = json!({"build_info": "b7000", "modalities": {"vision": true, "audio": false},
        "default_generation_settings": {"n_ctx": 8192}, "chat_template": "…"});
    let one = found(&[list("llamacpp", &[json!({"id": "gemma"})]), ("/props", props)]).await;
    assert!(one.found.any_name);
    assert_eq!(one.found.what(), "llama.cpp b7000");
    let operations = "chat completions, completions, responses, messages, embeddings, rerank, tokenize";
    assert_eq!(takes(&one), [format!("gemma: text+image not audio+embedding for {operations}, context 8192")]);
    let entry =
        json!({"id": "a", "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]}});
    let router =
        found(&[list("llamacpp", &[entry]), ("/props", json!({"role": "router", "build_info": "b7000"}))]).await;
    assert_eq!(
        (takes(&router), router.found.any_name),
        (vec!["a: text+image not audio+video+embedding for ?, -".to_owned()], false)
    );
}

/// As 0.33 and 0.17 answered, with models of each kind.
#[tokio::test]
async fn ollama_says_it_of_each_model_and_each_release_has_other_routes() {
    let show = |model: &str| match model {
        "text:latest" => {
            json!({"capabilities": ["completion"], "parameters": "stop \"x\"\nnum_ctx                        512",
            "model_info": {"general.architecture": "llama", "llama.context_length": 32768}})
        }
        "short:1" => json!({"capabilities": ["completion"], "parameters": "num_ctx 512",
            "model_info": {"general.architecture": "llama", "llama.context_length": 256}}),
        "eyes:7b" => {
            json!({"capabilities": ["completion", "vision"], "projector_info": {"clip.has_vision_encoder": true},
            "model_info": {"general.architecture": "llama", "llama.context_length": 32768}})
        }
        "ears:1" => {
            json!({"capabilities": ["completion", "vision", "audio"], "projector_info": {"clip.has_audio_encoder": true},
            "model_info": {"general.architecture": "llama", "llama.context_length": 32768}})
        }
        "embed:1" => json!({"capabilities": ["embedding"]}),
        _ => json!({"capabilities": ["image"]}),
    };
    let ollama = async |version: &'static str, paths: &[&'static str]| {
        let names = ["text:latest", "short:1", "eyes:7b", "ears:1", "embed:1", "draws:1"];
        let models = list("library", &names.map(|name| json!({"id": name})));
        let tags = json!({"models": [{"name": "eyes:7b", "details": {"format": "gguf"}}]});
        let mut router = Router::new()
            .route(models.0, get(move || std::future::ready(Json(models.1))))
            .route("/api/version", get(move || std::future::ready(Json(json!({"version": version})))))
            .route("/api/tags", get(move || std::future::ready(Json(tags))))
            .route(
                "/api/show",
                post(async move |Json(asked): Json<serde_json::Value>| Json(show(asked["model"].as_str().unwrap()))),
            );
        for path in paths {
            router = router.route(path, post(|| std::future::ready(axum::http::StatusCode::BAD_REQUEST)));
        }
        probe(&serve(router).await).await.unwrap()
    };
    let new = ollama("0.33.0-rc2", &["/v1/audio/transcriptions"]).await;
    assert_eq!(new.found.what(), "Ollama 0.33.0-rc2");
    let chat = "chat completions, completions, responses, messages";
    assert_eq!(
        takes(&new),
        [
            "draws:1: text not image+audio+video+embedding for , -".to_owned(),
            format!("ears:1: text+audio not image+video+embedding for {chat}, transcriptions, -"),
            "embed:1: text not image+audio+video+embedding for embeddings, -".to_owned(),
            format!("eyes:7b: text+image not audio+video+embedding for {chat}, -"),
            format!("short:1: text not image+audio+video+embedding for {chat}, context 256"),
            format!("text: text not image+audio+video+embedding for {chat}, context 512"),
            format!("text:latest: text not image+audio+video+embedding for {chat}, context 512"),
        ]
    );
    assert!(
        new.doubts.contains(&"the context length of ears:1: its Modelfile has no num_ctx, and Ollama chooses one when it loads the model".to_owned()),
        "{:?}",
        new.doubts
    );
    let old = ollama("0.17.4", &["/v1/images/generations"]).await;
    let old = takes(&old);
    assert!(old[0].contains("for image generations, image edits"), "{old:?}");
    assert!(old[1].ends_with("messages, embeddings, -"), "no transcriptions before 0.20: {old:?}");
    assert!(old[6].contains("messages, embeddings, context 512"), "{old:?}");
}

#[tokio::test]
async fn servers_of_one_task_say_which() {
    let tgi = json!({"model_id": "org/m", "router": "text-generation-router", "version": "3.3.7", "max_total_tokens": 2048,
        "model_pipeline_tag": "image-text-to-text"});
    let tgi = found(&[list("org/m", &[json!({"id": "org/m"})]), ("/info", tgi)]).await;
    assert_eq!(tgi.found.what(), "TGI 3.3.7");
    assert_eq!(
        takes(&tgi),
        ["org/m: text+image not audio+video+embedding for chat completions, completions, generate, context 2048"]
    );
    // It has no list of models at all.
    let tei = json!({"model_id": "BAAI/bge", "model_type": {"embedding": {"pooling": "cls"}}, "max_input_length": 512, "version": "1.8"});
    let tei = found(&[("/info", tei)]).await;
    assert_eq!(takes(&tei), ["BAAI/bge: text not image+audio+video+embedding for embeddings, context 512"]);
    let speaches = found(&[list("org", &[json!({"id": "w", "task": "automatic-speech-recognition"})])]).await;
    assert_eq!(takes(&speaches), ["w: audio not image+video+embedding for transcriptions, translations, -"]);
    let xinference =
        json!({"id": "x", "model_type": "LLM", "model_ability": ["chat", "vision"], "context_length": 1024});
    let xinference = found(&[list("xinference", &[xinference])]).await;
    assert_eq!(xinference.found.what(), "Xinference");
    assert_eq!(takes(&xinference), ["x: text+image not audio+video+embedding for chat completions, context 1024"]);
}

#[tokio::test]
async fn lists_that_say_more_are_found_and_an_unknown_server_is_said_to_be_one() {
    let plain = ("/v1/models", json!({"data": [{"id": "a"}]}));
    let rich =
        json!({"data": [{"id": "a", "input_modalities": ["text", "video"], "output_modalities": ["text", "image"]}]});
    let local_ai = found(&[plain.clone(), ("/v1/models/capabilities", rich)]).await;
    assert_eq!(takes(&local_ai), ["a: text+video not image+audio+embedding for ?, -"]);
    assert_eq!(local_ai.found.models["a"].output.yes().to_string(), "text+image");
    let unknown = found(&[plain]).await;
    assert_eq!(unknown.found.what(), "not recognised");
    assert_eq!(takes(&unknown), ["a: - not - for ?, -"]);
    assert_eq!(unknown.doubts, ["what a takes: its server does not say"]);
}
