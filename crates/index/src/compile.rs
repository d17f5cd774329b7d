//! The compiler: cluster state in, routing tables and reports out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use routing::{Draw, RoutingTable, Uid};

use crate::llm_d;
use crate::managed;
use crate::model::{self, ModelReport};
use crate::observe::{Index, ObjectKey};
use crate::pool::{self, Members, PoolReport, Selected};
use crate::stale::Stale;

/// What the cluster means. What is shared did not change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Compiled {
    /// By namespace; one for each that holds a pool or a model.
    pub tables: BTreeMap<String, Arc<RoutingTable>>,
    pub pools: BTreeMap<ObjectKey, Arc<PoolReport>>,
    pub models: BTreeMap<ObjectKey, Arc<ModelReport>>,
}

impl Index {
    /// Compiles all namespaces. Equal states give equal results.
    pub fn compile(&self) -> Compiled {
        let members = Members::of(self.pools.objects.iter(), self.pods.objects.iter(), &self.finds);
        let mut compiled = Compiled::default();
        let namespaces: BTreeSet<&str> =
            self.pools.objects.keys().chain(self.models.objects.keys()).map(|key| &*key.namespace).collect();
        for namespace in namespaces {
            self.compile_namespace(namespace, &members, &mut compiled);
        }
        compiled
    }

    /// What [`Index::compile`] gives, made from what it gave `before` and from what is `stale` since: all that [`Index::observe`] said.
    pub fn compile_again(&self, before: &Compiled, stale: &Stale) -> Compiled {
        match stale {
            Stale::All => self.compile(),
            // What does not fit together says nothing of the cluster.
            Stale::Pools(pools) => self.compile_pools(before, pools).unwrap_or_else(|| self.compile()),
        }
    }

    /// None where `before` is not what this cluster was.
    fn compile_pools(&self, before: &Compiled, stale: &BTreeMap<String, BTreeSet<String>>) -> Option<Compiled> {
        let mut compiled = before.clone();
        for (namespace, names) in stale {
            let keys = names.iter().map(|name| ObjectKey::new(namespace, name));
            let pools: Option<Vec<_>> = keys.map(|key| self.pools.objects.get_key_value(&key)).collect();
            let pools = pools?;
            let members = Members::of(pools.iter().copied(), self.pods.in_namespace(namespace), &self.finds);
            for (key, object) in pools {
                compiled.endpoints_change(key, &members.select(object, namespace))?;
            }
            self.compile_models_of(names, namespace, &mut compiled)?;
        }
        Some(compiled)
    }

    fn compile_namespace(&self, namespace: &str, members: &Members<'_>, compiled: &mut Compiled) {
        let mut table = RoutingTable { hash_key: self.hash_key(namespace), ..RoutingTable::default() };
        let mut selected: BTreeMap<&str, Selected<'_>> = BTreeMap::new();
        for (key, object) in self.pools.in_namespace(namespace) {
            let pods = members.select(object, namespace);
            table.pools.insert(key.name.as_str().into(), Arc::new(pods.pool(llm_d::policy(self, key))));
            selected.insert(&key.name, pods);
        }

        let winners = model::winners(self.models.in_namespace(namespace));
        for (key, object) in self.models.in_namespace(namespace) {
            let targets = model::targets(object);
            let accepted = model::accepted(key, object, &winners);
            let report = model::report(key, object, accepted, &targets, &table);
            if report.accepted {
                table.models.insert(object.spec.model_name.as_str().into(), Arc::new(model::routed(object, targets)));
            }
            compiled.models.insert(key.clone(), Arc::new(report));
        }

        let owners = managed::owners(self, namespace);
        let (declared, mut shared) = (pool::declared(&table), pool::shared(&table));
        for (key, object) in self.pools.in_namespace(namespace) {
            let managed = managed::picker(key, object, &owners, self);
            let in_table = pool::InTable {
                pool: &table.pools[&*key.name],
                declared: declared.get(&*key.name).copied(),
                shared: shared.remove(&*key.name).unwrap_or_default(),
            };
            let report = pool::report(key, object, &selected[&*key.name], managed, &in_table, self);
            compiled.pools.insert(key.clone(), Arc::new(report));
        }
        compiled.tables.insert(namespace.to_owned(), Arc::new(table));
    }

    /// A number that every controller and picker of a namespace finds and no stranger guesses: its oldest pool's uid.
    fn hash_key(&self, namespace: &str) -> u64 {
        let metadata = self.pools.in_namespace(namespace).map(|(_, object)| &object.metadata);
        let ages = metadata.filter_map(|metadata| {
            Some((metadata.creation_timestamp.as_ref().map(|at| at.0), metadata.uid.as_deref()?))
        });
        ages.min().map_or(0, |(_, oldest)| Draw::new(Uid::from(oldest).number()).next())
    }

    /// Pods change what a model offers, and neither whether it is accepted nor what the table holds of it.
    fn compile_models_of(&self, pools: &BTreeSet<String>, namespace: &str, compiled: &mut Compiled) -> Option<()> {
        let table = compiled.tables.get(namespace)?;
        let is_among_them = |report: &ModelReport| report.pools.iter().any(|pool| pools.contains(pool));
        let from = ObjectKey::new(namespace, "");
        let models = compiled.models.range_mut(from..).take_while(|(key, _)| key.namespace == namespace);
        for (key, report) in models.filter(|(_, report)| is_among_them(report)) {
            let object = self.models.objects.get(key)?;
            let accepted = report.verdicts.iter().find(|verdict| verdict.type_ == model::ACCEPTED)?;
            let again = model::report(key, object, accepted.clone(), &model::targets(object), table);
            if **report != again {
                *report = Arc::new(again);
            }
        }
        Some(())
    }
}

impl Compiled {
    /// Pods change the endpoints of a pool and what is said of them, and nothing else about it.
    fn endpoints_change(&mut self, key: &ObjectKey, selected: &Selected<'_>) -> Option<()> {
        let (table, report) = (self.tables.get_mut(&key.namespace)?, self.pools.get_mut(key)?);
        let known = table.pools.get(&*key.name)?;
        let pool = selected.pool(known.policy.clone());
        let ready = pool::endpoints_ready(selected, report.declared, &pool);
        if **known != pool {
            Arc::make_mut(table).pools.insert(key.name.as_str().into(), Arc::new(pool));
        }
        let place = report.verdicts.iter().position(|verdict| verdict.type_ == ready.type_)?;
        if report.verdicts[place] != ready {
            Arc::make_mut(report).verdicts[place] = ready;
        }
        Some(())
    }
}
