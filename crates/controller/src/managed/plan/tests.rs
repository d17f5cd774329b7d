//! What is planned for pools whose pickers are there, missing, old, or cannot be changed.

use index::Change;
use serde_json::{Value, json};

use super::*;
use crate::managed::seen::Seen;

fn settings(image: &str) -> Settings {
    Settings {
        image: image.into(),
        controller_url: "https://c.ns:9004".into(),
        controller_namespace: "ns".into(),
        controller_port: 9004,
    }
}

/// Pools, each in a namespace, with pickers from a template.
fn wanted(pools: &[(&str, &str, Value)]) -> Wanted {
    let picker = |(namespace, name, template): &(&str, &str, Value)| {
        let pool: InferencePool = serde_json::from_value(json!({
            "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
            "metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}")},
            "spec": {"selector": {"matchLabels": {"app": name}}, "targetPorts": [{"number": 8000}]},
        }))
        .unwrap();
        let managed = ManagedPicker {
            service: format!("{name}-picker"),
            port: 9002,
            template: serde_json::from_value(template.clone()).unwrap(),
            made_from: template.to_string(),
        };
        (ObjectKey::new(*namespace, *name), (pool, managed))
    };
    Wanted { pickers: pools.iter().map(picker).collect(), ..Wanted::default() }
}

/// A cluster in which everything that is planned is done, and Kubernetes says of each Deployment that all its pods are ready.
struct Cluster {
    seen: Seen,
    failures: Failures,
}

impl Cluster {
    fn new() -> Self {
        let mut seen = Seen::default();
        for kind in ChildKind::ALL {
            seen.observe(kind, Change::Relisted(Vec::new()));
        }
        Self { seen, failures: Failures::default() }
    }

    fn plans(&self, wanted: &Wanted, image: &str) -> Vec<Plan> {
        let settings = settings(image);
        plans(wanted, &self.seen, &settings, &render::release(&settings), &self.failures)
    }

    fn carry_out(&mut self, plan: Plan, ready: bool) {
        for step in plan.steps {
            let (Step::Make(desired) | Step::Mend(desired, _)) = step else { panic!("nothing is to go") };
            let (kind, key) = child_key(&desired).unwrap();
            let mut there = desired;
            let replicas = there.data["spec"]["replicas"].clone();
            if kind == ChildKind::Deployment {
                there.metadata.generation = Some(1);
                let revision =
                    if self.seen.deployment(key.clone(), owner_of(&there).as_deref()).is_some() { "2" } else { "1" };
                there.annotations_mut().insert("deployment.kubernetes.io/revision".into(), revision.into());
                let updated = if ready { replicas.clone() } else { json!(1) };
                there.data["status"] = json!({"observedGeneration": 1, "updatedReplicas": updated, "availableReplicas": replicas,
                    "readyReplicas": replicas, "replicas": replicas});
            }
            self.seen.observe(kind, Change::Applied(there));
        }
    }
}

fn owner_of(object: &DynamicObject) -> Option<String> {
    crate::managed::child::owner(object).map(|owner| owner.uid.clone())
}

/// Of which pools the Deployment is planned to be written, and what holds back the others.
fn deployments(plans: &[Plan]) -> Vec<String> {
    let touches = |step: &Step| match step {
        Step::Make(desired) | Step::Mend(desired, _) => {
            child_key(desired).is_some_and(|(kind, _)| kind == ChildKind::Deployment)
        }
        Step::Remove(..) => false,
    };
    let shown = |plan: &Plan| match &plan.held_by {
        Some(Stage::Queued { behind }) => format!("{}: behind {behind}", plan.pool),
        Some(other) => format!("{}: {other:?}", plan.pool),
        None if plan.steps.iter().any(touches) => format!("{}: now", plan.pool),
        None => format!("{}: as it is", plan.pool),
    };
    plans.iter().map(shown).collect()
}

#[test]
fn an_upgrade_takes_one_pool_after_another_and_a_users_wish_waits_for_none() {
    let mut pools = vec![("a", "one", json!({})), ("a", "two", json!({})), ("b", "three", json!({}))];
    let mut cluster = Cluster::new();
    for plan in cluster.plans(&wanted(&pools), "old") {
        assert_eq!(plan.steps.len(), 5);
        cluster.carry_out(plan, true);
    }
    let behind_one = ["a/one: now", "a/two: behind a/one", "b/three: behind a/one"];
    assert_eq!(deployments(&cluster.plans(&wanted(&pools), "new")), behind_one);

    // The API server refuses the first: it lets the next one have its turn, and says why it failed.
    cluster.failures.note(&ObjectKey::new("a", "one"), "no".into());
    let plans = cluster.plans(&wanted(&pools), "new");
    assert_eq!(deployments(&plans), [r#"a/one: Failed("no")"#, "a/two: now", "b/three: behind a/two"]);
    let second = plans.into_iter().nth(1).unwrap();
    cluster.carry_out(second, false);
    assert_eq!(deployments(&cluster.plans(&wanted(&pools), "new"))[2], "b/three: behind a/two", "it is not through");
    // Somebody who wants more pickers gets them, upgrade or not.
    pools[2].2 = json!({"replicas": 5});
    assert_eq!(deployments(&cluster.plans(&wanted(&pools), "new"))[2], "b/three: now");
}

#[test]
fn what_is_no_deployment_waits_for_no_turn() {
    let pools = [("a", "one", json!({})), ("a", "two", json!({}))];
    let mut cluster = Cluster::new();
    for plan in cluster.plans(&wanted(&pools), "old") {
        cluster.carry_out(plan, true);
    }
    cluster.seen.forget(&(ChildKind::Service, ObjectKey::new("a", "two-picker")));
    let plans = cluster.plans(&wanted(&pools), "new");
    assert_eq!(deployments(&plans)[1], "a/two: behind a/one");
    let made = |step: &Step| matches!(step, Step::Make(desired) if desired.types.as_ref().is_some_and(|types| types.kind == "Service"));
    assert!(plans[1].steps.iter().any(made));
}

#[test]
fn an_autoscalers_number_is_taken_over_and_begun_with_the_least() {
    let pools = [("a", "one", json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 9}}))];
    let mut cluster = Cluster::new();
    let plan = cluster.plans(&wanted(&pools), "old").remove(0);
    let deployment = |plan: &Plan| {
        plan.steps.iter().find_map(|step| match step {
            Step::Make(one) | Step::Mend(one, _) if child_key(one)?.0 == ChildKind::Deployment => Some(step.clone()),
            _ => None,
        })
    };
    let Some(Step::Make(made)) = deployment(&plan) else { panic!("it is made") };
    assert_eq!(made.data["spec"]["replicas"], 3);
    cluster.carry_out(plan, true);
    let mut there = made;
    there.metadata.resource_version = Some("77".into());
    there.data["spec"]["replicas"] = json!(5);
    cluster.seen.observe(ChildKind::Deployment, Change::Applied(there));
    let Some(Step::Mend(mended, over)) = deployment(&cluster.plans(&wanted(&pools), "old")[0]) else {
        panic!("it is mended")
    };
    assert_eq!((&mended.data["spec"]["replicas"], over.as_deref()), (&json!(5), Some("77")));
}

#[test]
fn what_its_owner_took_back_is_left_alone_until_the_owner_gives_it_back() {
    let mut cluster = Cluster::new();
    let wanted = wanted(&[("a", "p", json!({})), ("b", "p", json!({}))]);
    for plan in cluster.plans(&wanted, "one") {
        cluster.carry_out(plan, true);
    }
    let change = |cluster: &mut Cluster, kind: ChildKind, value: &str| {
        let key = (kind, ObjectKey::new("a", "p-picker"));
        let mut object = cluster.seen.object(&key).unwrap().clone();
        object.annotations_mut().insert(api::annotations::HANDS_OFF.into(), value.into());
        object.data["spec"]["selector"] = json!({"app": "another"});
        cluster.seen.observe(kind, Change::Applied(object));
    };
    let steps = |cluster: &Cluster, image: &str| -> Vec<usize> {
        cluster.plans(&wanted, image).iter().map(|plan| plan.steps.len()).collect()
    };
    assert_eq!(steps(&cluster, "one"), [5, 5]);
    change(&mut cluster, ChildKind::Service, "true");
    assert_eq!(steps(&cluster, "one"), [4, 5]);
    assert_eq!(cluster.seen.hands_off("a-p").count(), 1);
    change(&mut cluster, ChildKind::Service, "false");
    assert_eq!(steps(&cluster, "one"), [5, 5], "the promise holds again");
    // Nobody waits for a Deployment that is never upgraded.
    change(&mut cluster, ChildKind::Service, "true");
    change(&mut cluster, ChildKind::Deployment, "true");
    assert_eq!(deployments(&cluster.plans(&wanted, "two")), ["a/p: as it is", "b/p: now"]);
}
