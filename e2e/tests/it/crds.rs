//! What does the API server accept, and what does it say when it does not?

use anyhow::{Result, bail, ensure};

use crate::{Shared, Trials};

/// A change to a good object, and what the refusal says; empty when it is accepted.
type Case = (&'static str, &'static str, &'static str);

const POOL: &str = r#"{"apiVersion":"inference.networking.k8s.io/v1","kind":"InferencePool","metadata":{"name":"case"},"spec":{"selector":{"matchLabels":{"app":"model-server"}},"targetPorts":[{"number":8000}],"endpointPickerRef":{"name":"epp","kind":"Service","port":{"number":9002}}}}"#;

/// Upstream's own cases, and those that its suite lacks.
const POOLS: [Case; 19] = [
    ("as it is", "{}", ""),
    ("h2c", r#"{"spec":{"appProtocol":"kubernetes.io/h2c"}}"#, ""),
    (
        "kind left out without a port",
        r#"{"spec":{"endpointPickerRef":{"kind":null,"port":null}}}"#,
        "port is required when kind is 'Service' or unspecified (defaults to 'Service')",
    ),
    (
        "a Service without a port",
        r#"{"spec":{"endpointPickerRef":{"port":null}}}"#,
        "port is required when kind is 'Service' or unspecified (defaults to 'Service')",
    ),
    ("four ports", r#"{"spec":{"targetPorts":[{"number":8000},{"number":80},{"number":8081},{"number":443}]}}"#, ""),
    (
        "a port twice",
        r#"{"spec":{"targetPorts":[{"number":8000},{"number":80},{"number":8000},{"number":443}]}}"#,
        "port number must be unique",
    ),
    ("no picker", r#"{"spec":{"endpointPickerRef":null}}"#, ""),
    ("no ports", r#"{"spec":{"targetPorts":[]}}"#, "spec.targetPorts"),
    (
        "nine ports",
        r#"{"spec":{"targetPorts":[{"number":1},{"number":2},{"number":3},{"number":4},{"number":5},{"number":6},{"number":7},{"number":8},{"number":9}]}}"#,
        "must have at most 8 items",
    ),
    ("port 0", r#"{"spec":{"targetPorts":[{"number":0}]}}"#, "should be greater than or equal to 1"),
    ("port 65536", r#"{"spec":{"targetPorts":[{"number":65536}]}}"#, "should be less than or equal to 65535"),
    (
        "FailClosed",
        r#"{"spec":{"endpointPickerRef":{"failureMode":"FailClosed"}}}"#,
        r#"supported values: "FailOpen", "FailClose""#,
    ),
    ("no labels", r#"{"spec":{"selector":{"matchLabels":{"app":null}}}}"#, "spec.selector.matchLabels"),
    (
        "a label of 64 letters",
        r#"{"spec":{"selector":{"matchLabels":{"app":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}}}"#,
        "may not be more than 63",
    ),
    ("another kind without a port", r#"{"spec":{"endpointPickerRef":{"kind":"Foo","port":null}}}"#, ""),
    ("another protocol", r#"{"spec":{"appProtocol":"https"}}"#, "Unsupported value"),
    ("a bad group", r#"{"spec":{"endpointPickerRef":{"group":"Not A Group"}}}"#, "spec.endpointPickerRef.group"),
    ("a picker without a name", r#"{"spec":{"endpointPickerRef":{"name":""}}}"#, "spec.endpointPickerRef.name"),
    ("no selector", r#"{"spec":{"selector":null}}"#, "spec.selector"),
];

const MODEL: &str = r#"{"apiVersion":"thalamus.dev/v1alpha1","kind":"InferenceModel","metadata":{"name":"case"},"spec":{"modelName":"chat","poolRef":{"name":"p"}}}"#;

const MODELS: [Case; 21] = [
    ("as it is", "{}", ""),
    ("weights on all", r#"{"spec":{"targetModels":[{"name":"a","weight":1},{"name":"b","weight":2}]}}"#, ""),
    ("weights on none", r#"{"spec":{"targetModels":[{"name":"a"},{"name":"b"}]}}"#, ""),
    (
        "weights on some",
        r#"{"spec":{"targetModels":[{"name":"a","weight":1},{"name":"b"}]}}"#,
        "weight must be set on every target model or on none",
    ),
    ("weight 0", r#"{"spec":{"targetModels":[{"name":"a","weight":0}]}}"#, "should be greater than or equal to 1"),
    (
        "no pool at all",
        r#"{"spec":{"poolRef":null}}"#,
        "poolRef is required unless every target model names a pool of its own",
    ),
    (
        "a pool for some",
        r#"{"spec":{"poolRef":null,"targetModels":[{"name":"a","poolRef":{"name":"p"}},{"name":"b"}]}}"#,
        "poolRef is required unless every target model names a pool of its own",
    ),
    ("a pool for each", r#"{"spec":{"poolRef":null,"targetModels":[{"name":"a","poolRef":{"name":"p"}}]}}"#, ""),
    ("no name", r#"{"spec":{"modelName":""}}"#, "spec.modelName"),
    (
        "an unknown modality",
        r#"{"spec":{"modalities":{"input":["Smell"]}}}"#,
        r#"supported values: "Text", "Image", "Audio", "Video""#,
    ),
    (
        "an embedding as input",
        r#"{"spec":{"modalities":{"input":["Embedding"]}}}"#,
        r#"supported values: "Text", "Image", "Audio", "Video""#,
    ),
    ("a modality twice", r#"{"spec":{"modalities":{"input":["Text","Text"]}}}"#, "duplicate entries for key"),
    (
        "a media policy",
        r#"{"spec":{"media":{"Image":{"maxItems":8,"maxItemBytes":"20Mi","sources":["Inline","URL"],"allowedHosts":["*.example.com"]}}}}"#,
        "",
    ),
    (
        "every limit of media",
        r#"{"spec":{"media":{"Image":{"maxPixels":16777216,"minSide":8,"formats":["PNG","WebP"],"schemes":["https"]},"Audio":{"maxSeconds":600},"allow":["Embeds","FileURLs"]}}}"#,
        "",
    ),
    (
        "names for media, and every danger",
        r#"{"spec":{"media":{"writeUUIDs":true,"allow":["Embeds","FileURLs","ProcessorArguments","FrameLists","PlaceholderTokens","EngineInternals","UnlistedFields","SharedUUIDs"]}}}"#,
        "",
    ),
    (
        "an unknown danger",
        r#"{"spec":{"media":{"allow":["Everything"]}}}"#,
        r#"supported values: "Embeds", "FileURLs""#,
    ),
    ("a negative length", r#"{"spec":{"media":{"Audio":{"maxSeconds":-1}}}}"#, "should be greater than or equal to 1"),
    (
        "an unknown scheme",
        r#"{"spec":{"media":{"Image":{"schemes":["ftp"]}}}}"#,
        r#"supported values: "http", "https""#,
    ),
    (
        "operations and a family",
        r#"{"spec":{"operations":["ChatCompletions"],"targetModels":[{"name":"w","operations":["Transcriptions","Translations"],"family":"Whisper"}]}}"#,
        "",
    ),
    (
        "an unknown operation",
        r#"{"spec":{"operations":["Chat"]}}"#,
        r#"supported values: "ChatCompletions", "Completions""#,
    ),
    ("no quantity", r#"{"spec":{"media":{"Image":{"maxItemBytes":"lots"}}}}"#, "spec.media.Image.maxItemBytes"),
];

pub(crate) fn register(trials: &mut Trials) {
    trials.add("crds::every_inferencepool_case_is_accepted_or_refused_as_upstream_does", async |shared| {
        check(shared, "pool-cases", POOL, &POOLS)
    });
    trials.add("crds::every_inferencemodel_case_is_accepted_or_refused_with_clear_words", async |shared| {
        check(shared, "model-cases", MODEL, &MODELS)
    });
    trials.add("crds::a_model_name_cannot_be_changed", async |shared| a_model_name_cannot_be_changed(shared));
    trials.add("crds::defaults_are_upstreams", async |shared| defaults_are_upstreams(shared));
}

fn check(shared: &Shared, namespace: &str, good: &str, cases: &[Case]) -> Result<()> {
    shared.cluster().apply(
        namespace,
        &format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{namespace}"}}}}"#),
    )?;
    for (number, (case, change, expected)) in cases.iter().enumerate() {
        let mut object: serde_json::Value = serde_json::from_str(good)?;
        merge(&mut object, &serde_json::from_str(change)?);
        object["metadata"]["name"] = format!("case-{number}").into();
        match (shared.cluster().apply(namespace, &object.to_string()), *expected) {
            (Ok(_), "") => {}
            (Ok(_), expected) => bail!("{case}: accepted; expected the refusal {expected:?}"),
            (Err(error), "") => bail!("{case}: refused: {error}"),
            (Err(error), expected) => {
                ensure!(error.to_string().contains(expected), "{case}: {error} instead of {expected:?}");
            }
        }
    }
    Ok(())
}

/// RFC 7396.
fn merge(object: &mut serde_json::Value, change: &serde_json::Value) {
    let Some(fields) = change.as_object() else { return object.clone_from(change) };
    for (name, change) in fields {
        if change.is_null() {
            if let Some(object) = object.as_object_mut() {
                object.remove(name);
            }
        } else {
            merge(&mut object[name], change);
        }
    }
}

fn a_model_name_cannot_be_changed(shared: &Shared) -> Result<()> {
    let cluster = shared.cluster();
    cluster.apply("default", MODEL)?;
    let Err(error) = cluster.apply("default", &MODEL.replace(r#""chat""#, r#""other""#)) else {
        bail!("the name was changed")
    };
    ensure!(error.to_string().contains("modelName cannot be changed; create another InferenceModel"), "{error}");
    Ok(())
}

fn defaults_are_upstreams(shared: &Shared) -> Result<()> {
    let cluster = shared.cluster();
    let minimal = POOL.replace(r#""kind":"Service","#, "").replace(r#""name":"case""#, r#""name":"defaults""#);
    cluster.apply("default", &minimal)?;
    let format = "jsonpath={.spec.appProtocol} {.spec.endpointPickerRef.kind} {.spec.endpointPickerRef.failureMode} <{.spec.endpointPickerRef.group}>";
    let defaults = cluster.kubectl(&["get", "inferencepool", "defaults", "-n", "default", "-o", format])?;
    ensure!(defaults == "http Service FailClose <>", "{defaults}");
    let approved = cluster.kubectl(&[
        "get",
        "crd",
        "inferencepools.inference.networking.k8s.io",
        "-o",
        "jsonpath={.status.conditions[?(@.type==\"KubernetesAPIApprovalPolicyConformant\")].status}",
    ])?;
    ensure!(approved == "True", "the API server does not find the CRD approved: {approved}");
    Ok(())
}
