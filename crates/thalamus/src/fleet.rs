//! Model servers that nobody declared, as a routing table: servers that are alike are a pool, and names that several have are one model, whose
//! targets fit as what was found of them says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use routing::{
    AppProtocol, Capability, Endpoint, Family, Found, FoundModel, Limits, ModalitySet, Model, ModelName, OperationSet,
    Pool, PoolName, PoolPolicy, RoutingTable, Target, Uid,
};

/// A server that has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// What people call it.
    pub(crate) label: String,
    pub(crate) address: SocketAddr,
    pub(crate) found: Arc<Found>,
}

/// `NAME`, which stands for all models, or `NAME=MODEL,MODEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) name: ModelName,
    /// None for all of them, adapters aside.
    pub(crate) models: Option<Vec<ModelName>>,
}

/// The table of these servers. Pools are called as they were in the one before.
pub(crate) fn table(members: &[Member], aliases: &[Alias], before: &RoutingTable) -> RoutingTable {
    let mut kinds: BTreeMap<Vec<(ModelName, ModalitySet, ModalitySet)>, Vec<&Member>> = BTreeMap::new();
    for member in members {
        kinds.entry(kind(&member.found)).or_default().push(member);
    }
    let mut table = RoutingTable::default();
    let mut targets: BTreeMap<ModelName, Vec<Target>> = BTreeMap::new();
    let kinds: Vec<Vec<&Member>> = kinds.into_values().collect();
    for (members, known) in kinds.iter().zip(known_names(&kinds, before)) {
        let name = known.unwrap_or_else(|| pool_name(&members[0].found, &table.pools, before));
        let endpoints = members.iter().map(|member| (member.label.as_str().into(), endpoint(member))).collect();
        let pool = Pool { app_protocol: AppProtocol::Http, policy: PoolPolicy::default(), endpoints };
        for model in members[0].found.models.keys() {
            targets.entry(model.clone()).or_default().extend(target(model, &name, members));
        }
        table.pools.insert(name, Arc::new(pool));
    }
    for targets in targets.values_mut() {
        alike(targets);
    }
    let adapters: BTreeSet<&ModelName> = adapters(members);
    let of_alias = |alias: &Alias| -> Vec<Target> {
        let all = || targets.keys().filter(|name| !adapters.contains(name)).cloned().collect();
        let names: Vec<ModelName> = alias.models.clone().unwrap_or_else(all);
        names.iter().filter_map(|name| targets.get(name)).flatten().cloned().collect()
    };
    let named: Vec<(ModelName, Vec<Target>)> =
        aliases.iter().map(|alias| (alias.name.clone(), of_alias(alias))).collect();
    let models = targets.clone().into_iter().chain(named).filter(|(_, targets)| !targets.is_empty());
    table.models = models.map(|(name, targets)| (name, Arc::new(Model::new(targets)))).collect();
    table
}

fn kind(found: &Found) -> Vec<(ModelName, ModalitySet, ModalitySet)> {
    let of = |(name, model): (&ModelName, &FoundModel)| {
        let Capability { input, output, .. } = model.capability();
        (name.clone(), input, output)
    };
    found.models.iter().map(of).collect()
}

fn adapters(members: &[Member]) -> BTreeSet<&ModelName> {
    let models = members.iter().flat_map(|member| &member.found.models);
    models.filter(|(_, model)| model.parent.is_some()).map(|(name, _)| name).collect()
}

fn endpoint(member: &Member) -> Endpoint {
    let uid = Uid::from(&*member.address.to_string());
    Endpoint { found: Some(Arc::clone(&member.found)), ..Endpoint::new(member.address, uid) }
}

/// What some of these can do, each of which knows what it cannot itself: a newer release may have a path more, or a longer context.
fn target(name: &ModelName, pool: &PoolName, members: &[&Member]) -> Option<Target> {
    let same = || members.iter().filter_map(|member| member.found.models.get(name));
    let capability = same().map(FoundModel::capability).reduce(Capability::union)?;
    let limits = same().map(|model| model.limits).reduce(Limits::union)?;
    let parent = same().find_map(|model| model.parent.as_deref());
    let family = Family::guess(name).or_else(|| Family::guess(parent?));
    let weight = u32::try_from(members.len()).unwrap_or(u32::MAX);
    Some(Target { family, limits, weight, ..Target::new(name.clone(), pool.clone(), capability) })
}

/// Targets of one model that take and give the same are equals, even where one engine has a path more than the other: each endpoint says which it
/// has.
fn alike(targets: &mut [Target]) {
    // Whoever names no operation would be left out wherever another names one: that nobody could tell is no reason.
    let named = targets.iter().map(|target| target.capability).filter(|capability| capability.declares_operations());
    let named = named.fold(OperationSet::EMPTY, |all, capability| all.union(capability.operations));
    for target in targets.iter_mut().filter(|target| !named.is_empty() && !target.capability.declares_operations()) {
        target.capability.operations = named;
    }
    let sides = |target: &Target| (target.capability.input, target.capability.output);
    for place in 0..targets.len() {
        let same = targets.iter().filter(|other| sides(other) == sides(&targets[place]));
        let all = same.fold(OperationSet::EMPTY, |all, same| all.union(same.capability.operations));
        targets[place].capability.operations = all;
    }
}

/// What the pools were called that these were in: what is known of endpoints goes by it. Where several could have a name, it is whose servers stayed
/// what they were, and then who has more of them: one that has become another goes to the others of its kind, and they stay.
fn known_names(kinds: &[Vec<&Member>], before: &RoutingTable) -> Vec<Option<PoolName>> {
    let mut claims: Vec<(usize, usize, usize, &PoolName)> = Vec::new();
    for (place, members) in kinds.iter().enumerate() {
        for (name, pool) in &before.pools {
            let there = members.iter().filter_map(|member| Some((*member, pool.endpoints.get(&*member.label)?)));
            let is_same = |(member, endpoint): &(&Member, &Endpoint)| {
                endpoint.found.as_ref().is_some_and(|found| kind(found) == kind(&member.found))
            };
            let (same, all) = (there.clone().filter(is_same).count(), there.count());
            if all > 0 {
                claims.push((same, all, place, name));
            }
        }
    }
    claims.sort_by(|one, other| {
        (other.0, other.1).cmp(&(one.0, one.1)).then_with(|| (one.2, one.3).cmp(&(other.2, other.3)))
    });
    let mut names: Vec<Option<PoolName>> = vec![None; kinds.len()];
    for (_, _, place, name) in claims {
        if names[place].is_none() && !names.iter().flatten().any(|taken| taken == name) {
            names[place] = Some(name.clone());
        }
    }
    names
}

/// After its first model that is no adapter.
fn pool_name(found: &Found, taken: &BTreeMap<PoolName, Arc<Pool>>, before: &RoutingTable) -> PoolName {
    let model = found.models.iter().find(|(_, model)| model.parent.is_none()).map_or("servers", |(name, _)| &**name);
    object_name(model, |name| taken.contains_key(name) || before.pools.contains_key(name)).into()
}

/// A name that Kubernetes takes, as near to a model's as that can be, and not taken yet.
pub(crate) fn object_name(model: &str, is_taken: impl Fn(&str) -> bool) -> String {
    // What stands before a slash is whose it is.
    let model = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    let word: String = model.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(50).collect();
    let word = word.trim_matches('-');
    let is_name = word.starts_with(|c: char| c.is_ascii_alphabetic());
    let name = if is_name { word.to_owned() } else { format!("model-{word}").trim_matches('-').to_owned() };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| !is_taken(name)).expect("there is always one more")
}

impl FromStr for Alias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, models) = text.split_once('=').map_or((text, None), |(name, models)| (name, Some(models)));
        let models = models.map(|models| models.split(',').map(str::trim).map(ModelName::from).collect::<Vec<_>>());
        if name.is_empty() || models.as_ref().is_some_and(|models| models.iter().any(|model| model.is_empty())) {
            return Err("expected NAME, or NAME=MODEL,MODEL".into());
        }
        Ok(Self { name: name.into(), models })
    }
}

#[cfg(test)]
mod tests {
    use routing::{Draw, Known, Modality, Operation, Requirement};

    use super::*;

    fn server(port: u16, models: &[(&str, &[Modality])]) -> Member {
        let model = |(name, takes): &(&str, &[Modality])| {
            let model = FoundModel {
                input: Known::exactly(ModalitySet::of(takes)),
                output: Known::exactly(ModalitySet::TEXT),
                operations: Some([Operation::ChatCompletions].into_iter().collect()),
                ..FoundModel::default()
            };
            (ModelName::from(*name), model)
        };
        let found = Arc::new(Found { models: models.iter().map(model).collect(), ..Found::default() });
        Member { label: format!("s{port}"), address: ([127, 0, 0, 1], port).into(), found }
    }

    /// The first table of these.
    fn table(members: &[Member], aliases: &[Alias]) -> RoutingTable {
        super::table(members, aliases, &RoutingTable::default())
    }

    /// One of its models as it should be.
    fn change(member: &mut Member, model: &str, change: impl FnOnce(&mut FoundModel)) {
        change(Arc::make_mut(&mut member.found).models.get_mut(model).unwrap());
    }

    const TEXT: &[Modality] = &[Modality::Text];
    const SEES: &[Modality] = &[Modality::Text, Modality::Image];

    /// The pool that a chat with these goes to first.
    fn way(table: &RoutingTable, model: &str, takes: &[Modality]) -> Option<String> {
        let need = Requirement::new(Operation::ChatCompletions, ModalitySet::of(takes), ModalitySet::TEXT);
        let route = table.route(Some(model), need).ok()?;
        Some(route.tiers()[0].order(&mut Draw::new(1))[0].pool().to_string())
    }

    #[test]
    fn one_name_on_two_kinds_of_servers_is_one_model_with_tiers() {
        let table =
            table(&[server(1, &[("qwen", TEXT)]), server(2, &[("qwen", SEES)]), server(3, &[("qwen", TEXT)])], &[]);
        let sizes: Vec<usize> = table.pools.values().map(|pool| pool.endpoints.len()).collect();
        assert_eq!((table.models.len(), sizes.iter().sum::<usize>()), (1, 3));
        let (text, image) = (way(&table, "qwen", TEXT).unwrap(), way(&table, "qwen", SEES).unwrap());
        assert_ne!(text, image);
        assert_eq!(table.pools[&*text].endpoints.len(), 2);
    }

    #[test]
    fn pools_keep_their_names_when_another_kind_joins_or_one_leaves() {
        let (text, sees) = (server(1, &[("qwen", TEXT)]), server(2, &[("qwen", SEES)]));
        let hears = server(3, &[("qwen", &[Modality::Text, Modality::Audio])]);
        let pool_of = |table: &RoutingTable, label: &str| {
            let mut pools = table.pools.iter().filter(|(_, pool)| pool.endpoints.contains_key(label));
            pools.next().map(|(name, _)| name.to_string()).unwrap()
        };
        let mut before = table(std::slice::from_ref(&sees), &[]);
        assert_eq!(pool_of(&before, "s2"), "qwen");
        for members in [vec![&text, &sees], vec![&text, &sees, &hears], vec![&sees, &hears], vec![&hears]] {
            let members: Vec<Member> = members.into_iter().cloned().collect();
            let now = super::table(&members, &[], &before);
            for member in members
                .iter()
                .filter(|member| before.pools.values().any(|pool| pool.endpoints.contains_key(&*member.label)))
            {
                assert_eq!(pool_of(&now, &member.label), pool_of(&before, &member.label));
            }
            before = now;
        }
    }

    #[test]
    fn of_servers_of_which_one_becomes_another_the_others_stay_where_they_are() {
        let before = table(&[1, 2, 3].map(|port| server(port, &[("qwen", SEES)])), &[]);
        let now = super::table(
            &[server(1, &[("qwen", TEXT)]), server(2, &[("qwen", SEES)]), server(3, &[("qwen", SEES)])],
            &[],
            &before,
        );
        assert!(now.pools["qwen"].endpoints.keys().map(|label| &**label).eq(["s2", "s3"]));
    }

    #[test]
    fn one_that_becomes_like_others_joins_them_and_nobody_else_moves() {
        let before =
            table(&[server(1, &[("qwen", SEES)]), server(2, &[("qwen", SEES)]), server(3, &[("qwen", TEXT)])], &[]);
        let pool_of = |table: &RoutingTable, label: &str| {
            let mut pools = table.pools.iter().filter(|(_, pool)| pool.endpoints.contains_key(label));
            pools.next().map(|(name, _)| name.to_string()).unwrap()
        };
        let members = [server(1, &[("qwen", TEXT)]), server(2, &[("qwen", SEES)]), server(3, &[("qwen", TEXT)])];
        let now = super::table(&members, &[], &before);
        for (label, was) in [("s1", "s3"), ("s2", "s2"), ("s3", "s3")] {
            assert_eq!(pool_of(&now, label), pool_of(&before, was), "{label}");
        }
    }

    #[test]
    fn an_alias_puts_different_models_behind_one_name_and_leaves_adapters_out() {
        let mut sees = server(2, &[("vision", SEES), ("lora", SEES)]);
        change(&mut sees, "lora", |model| model.parent = Some("vision".into()));
        let all: Alias = "chat".parse().unwrap();
        let one: Alias = "look=vision".parse().unwrap();
        let table = table(&[server(1, &[("Org/Text-7B", TEXT)]), sees], &[all, one]);
        assert_eq!(
            table.models.keys().map(|name| &**name).collect::<Vec<_>>(),
            ["Org/Text-7B", "chat", "look", "lora", "vision"]
        );
        assert_eq!(
            (way(&table, "chat", TEXT).as_deref(), way(&table, "chat", SEES).as_deref()),
            (Some("text-7b"), Some("vision"))
        );
        assert_eq!(way(&table, "look", TEXT).as_deref(), Some("vision"));
        assert_eq!(table.models["chat"].targets.len(), 2);
    }

    #[test]
    fn what_nobody_knows_is_tried_last() {
        let mut unknown = server(1, &[("m", TEXT)]);
        change(&mut unknown, "m", |model| *model = FoundModel::default());
        let table = table(&[unknown, server(2, &[("m", TEXT)])], &[]);
        let first = way(&table, "m", TEXT).unwrap();
        assert!(table.pools[&*first].endpoints.contains_key("s2"), "{table:?}");
        assert!(way(&table, "m", &[Modality::Text, Modality::Video]).is_some());
        let need = Requirement::new(Operation::ChatCompletions, ModalitySet::TEXT, ModalitySet::TEXT);
        assert_eq!(table.route(Some("m"), need).unwrap().tiers().len(), 2, "and it is tried");
    }

    #[test]
    fn a_release_with_a_path_more_is_an_equal() {
        let mut newer = server(2, &[("m", TEXT), ("n", TEXT)]);
        for name in ["m", "n"] {
            let operations = [Operation::ChatCompletions, Operation::Responses].into_iter().collect();
            change(&mut newer, name, |model| model.operations = Some(operations));
        }
        let table = table(&[server(1, &[("m", TEXT)]), newer], &[]);
        let need = Requirement::new(Operation::ChatCompletions, ModalitySet::TEXT, ModalitySet::TEXT);
        assert_eq!(table.route(Some("m"), need).unwrap().tiers().len(), 1);
        let endpoints = table.pools.values().flat_map(|pool| pool.endpoints.values());
        let responses = Requirement::new(Operation::Responses, ModalitySet::TEXT, ModalitySet::TEXT);
        assert_eq!(
            endpoints.filter(|endpoint| endpoint.offer(Some("m")).unwrap().capability.covers(responses)).count(),
            1
        );
    }

    #[test]
    fn pools_have_names_that_kubernetes_takes() {
        let nothing = RoutingTable::default();
        let of = |model: &str| pool_name(&server(1, &[(model, TEXT)]).found, &nothing.pools, &nothing).to_string();
        assert_eq!(of("Qwen/Qwen2.5-VL_7B:latest"), "qwen2-5-vl-7b-latest");
        assert_eq!(of("/models/7b/"), "model");
        assert_eq!(of("日本"), "model");
        assert!("=a".parse::<Alias>().is_err() && "a=".parse::<Alias>().is_err() && "a=b,".parse::<Alias>().is_err());
    }
}
