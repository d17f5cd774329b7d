//! The compiler: cluster state in, routing tables and reports out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use routing::RoutingTable;

use crate::llm_d;
use crate::managed;
use crate::model::{self, ModelReport};
use crate::observe::{Index, ObjectKey};
use crate::pool::{self, Members, PoolReport, Selected};

/// What the cluster means.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Compiled {
    /// By namespace; one for each that holds a pool or a model.
    pub tables: BTreeMap<String, Arc<RoutingTable>>,
    pub pools: BTreeMap<ObjectKey, PoolReport>,
    pub models: BTreeMap<ObjectKey, ModelReport>,
}

impl Index {
    /// Compiles all namespaces. Equal states give equal results.
    pub fn compile(&self) -> Compiled {
        let members = Members::of(self);
        let mut compiled = Compiled::default();
        let namespaces: BTreeSet<&str> =
            self.pools.objects.keys().chain(self.models.objects.keys()).map(|key| &*key.namespace).collect();
        for namespace in namespaces {
            self.compile_namespace(namespace, &members, &mut compiled);
        }
        compiled
    }

    fn compile_namespace(&self, namespace: &str, members: &Members<'_>, compiled: &mut Compiled) {
        let mut table = RoutingTable::default();
        let mut selected: BTreeMap<&str, Selected<'_>> = BTreeMap::new();
        for (key, object) in self.pools.in_namespace(namespace) {
            let pods = members.select(object, namespace);
            table.pools.insert(key.name.as_str().into(), Arc::new(pods.pool(llm_d::policy(self, key))));
            selected.insert(&key.name, pods);
        }

        let winners = model::winners(self.models.in_namespace(namespace));
        for (key, object) in self.models.in_namespace(namespace) {
            let (report, routed) = model::compile(key, object, &winners, &table, self);
            if let Some(routed) = routed {
                table.models.insert(object.spec.model_name.as_str().into(), Arc::new(routed));
            }
            compiled.models.insert(key.clone(), report);
        }

        let owners = managed::owners(self, namespace);
        let declared = pool::declared(&table);
        for (key, object) in self.pools.in_namespace(namespace) {
            let managed = managed::picker(key, object, &owners, self);
            let report = pool::report(
                key,
                object,
                &selected[&*key.name],
                managed,
                declared.get(&*key.name).copied(),
                &table,
                self,
            );
            compiled.pools.insert(key.clone(), report);
        }
        compiled.tables.insert(namespace.to_owned(), Arc::new(table));
    }
}
