use std::path::Path;

use super::*;

const OURS: &str = r"
apiVersion: thalamus.dev/v1alpha1
kind: SchedulingPolicy
rules:
- models: [batch]
  toPriority: -1
  scores: {queue: 2, kvCache: 1.5}
  prefers: [responsive]
- fromPriority: 5
";

#[test]
fn ours_says_for_whom_and_how() {
    let Read { profiles, notes } = read(OURS).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    let batch = profiles.of(Some("batch"), -3);
    assert_eq!(
        batch.filters,
        [
            Filter::Capability,
            Filter::Subset,
            Filter::Limits,
            Filter::Responsive,
            Filter::Willing,
            Filter::Context,
            Filter::Adapter
        ]
    );
    assert_eq!(batch.prefers, Preference::Scores(vec![(Scorer::ShortestQueue, 2.0), (Scorer::FreeKvCache, 1.5)]));
    let in_order = filters(vec![PreferenceName::Answering, PreferenceName::Queue, PreferenceName::Room]).unwrap();
    let of_the_request = [Filter::Willing, Filter::Context];
    let last = [Filter::Queue, Filter::Room, Filter::Adapter];
    assert_eq!(in_order[3..], [&[Filter::Answering][..], &of_the_request, &last].concat());
    for (model, priority) in [("batch", 0), ("other", -3), ("other", 9)] {
        assert_eq!(*profiles.of(Some(model), priority), Profile::default());
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_line() {
    let error = |text: &str| format!("{:#}", read(text).unwrap_err());
    for (wrong, instead, expected) in [
        ("queue: 2", "queues: 2", "line 7"),
        ("queue: 2", "queue: much", "line 7"),
        ("queue: 2", "queue: -2", "rules[0].scores: queue: a weight is a number above 0"),
        ("queue: 2", "queue: .nan", "line 7"),
        ("{queue: 2, kvCache: 1.5}", "{}", "rules[0].scores: no score is named"),
        ("toPriority: -1", "to: -1", "line 6"),
        ("toPriority: -1", "toPriority: -1\n  fromPriority: 1", "rules[0]: fromPriority 1 is above toPriority -1"),
        ("v1alpha1", "v9", "line 2"),
        ("kind: SchedulingPolicy", "kind: Pod", "kind \"Pod\": expected SchedulingPolicy"),
        ("kind: SchedulingPolicy", "", "it has no kind"),
        (
            "[responsive]",
            "[room, queue]",
            "rules[0].prefers: whatever lacks queue lacks room as well: name queue first",
        ),
        ("rules:", "rules: [", "line"),
    ] {
        assert!(OURS.contains(wrong), "{wrong}");
        let said = error(&OURS.replacen(wrong, instead, 1));
        assert!(said.contains(expected), "{instead}: {said}");
    }
    assert!(error("").contains("kind"), "{}", error(""));
}

#[test]
fn the_schema_beside_the_documents_is_that_of_the_reader() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scheduling-policy.schema.json");
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(SchedulingPolicy)).unwrap() + "\n";
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &schema).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), schema, "BLESS=1 writes it down");
}

#[test]
fn the_references_is_read_as_far_as_there_are_equivalents() {
    let text = r"
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
saturationDetector: {pluginRef: x, 3: odd}
plugins:
- type: queue-scorer
- {name: cache, type: prefix-cache-scorer, parameters: {matchLengthWeight: 0.5}}
- type: mm-embeddings-cache-scorer
- type: topology-affinity-scorer
- type: max-score-picker
schedulingProfiles:
- name: other
  plugins: []
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: cache, weight: 3}
  - {pluginRef: mm-embeddings-cache-scorer}
  - {pluginRef: topology-affinity-scorer}
  - {pluginRef: max-score-picker}
";
    let Read { profiles, notes } = read(text).unwrap();
    assert_eq!(profiles.rest.prefers, Preference::Scores(vec![(Scorer::ShortestQueue, 2.0), (Scorer::Cached, 4.0)]));
    assert_eq!(
        notes,
        [
            "the plugin topology-affinity-scorer has no equivalent here",
            "featureGates has no effect: what is here is on",
            "saturationDetector has no effect",
            "the profile \"other\" has no effect: one decides for all requests",
            "requests are scheduled by scores (queue 2, cached 4), and not by what they cost",
        ]
    );
    let disaggregated = "kind: EndpointPickerConfig\nplugins: [{type: queue-scorer}, {type: kv-cache-scorer}]\nschedulingProfiles:\n\
        - name: prefill\n  plugins: [{pluginRef: queue-scorer}]\n- name: decode\n  plugins: [{pluginRef: kv-cache-scorer}]\n";
    assert_eq!(
        read(disaggregated).unwrap().profiles.rest.prefers,
        Preference::Scores(vec![(Scorer::FreeKvCache, 1.0)]),
        "what decodes is what answers"
    );
    let empty = read("kind: EndpointPickerConfig\nplugins:\nschedulingProfiles:\n").unwrap();
    assert_eq!(empty.profiles, Profiles::default());
    let unknown = format!("{:#}", read(&text.replace("name: cache, ", "")).unwrap_err());
    assert_eq!(unknown, "the profile names the plugin \"cache\", which is not declared");
    let default = "kind: EndpointPickerConfig\nplugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}]\n\
        schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer, weight: 2}, {pluginRef: kv-cache-utilization-scorer, weight: 2}, \
        {pluginRef: prefix-cache-scorer, weight: 3}]}]";
    assert_eq!(read(default).unwrap().profiles, Profiles::default(), "nobody has chosen anything");
}

#[test]
fn a_file_that_changes_is_read_again_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, OURS).unwrap();
    let args = PolicyArgs { config_file: Some(file.display().to_string()), config_text: None };
    let mut policy = args.read().unwrap().unwrap();
    let rules = |policy: &Policy| policy.read.profiles.rules.len();
    assert!(!policy.look().unwrap());
    std::fs::write(&file, OURS.replace("- fromPriority: 5\n", "")).unwrap();
    assert!(policy.look().unwrap());
    assert_eq!(rules(&policy), 1);
    std::fs::write(&file, "rules: [").unwrap();
    let error = format!("{:#}", policy.look().unwrap_err());
    assert!(error.starts_with("--config-file /") && error.contains("line 1"), "{error}");
    assert!(!policy.look().unwrap(), "it is said once");
    std::fs::remove_file(&file).unwrap();
    let looks: Vec<bool> = (0..5).map(|_| policy.look().is_err()).collect();
    assert_eq!(looks, [false, false, true, false, false], "once, when it is gone for longer than a moment");
    assert_eq!(rules(&policy), 1);
    std::fs::write(&file, OURS).unwrap();
    assert!(policy.look().unwrap());
    assert_eq!(rules(&policy), 2);
    let missing =
        format!("{:#}", PolicyArgs { config_file: Some("/nowhere".into()), config_text: None }.read().unwrap_err());
    assert_eq!(missing, "--config-file /nowhere: No such file or directory (os error 2)");
    let empty = PolicyArgs { config_file: Some(String::new()), config_text: Some(String::new()) };
    assert!(empty.read().unwrap().is_none());
}
