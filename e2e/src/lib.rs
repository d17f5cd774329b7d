//! A world for end-to-end tests: a real API server, a real Envoy, our real processes. The harness plays the kubelet, and simulators stand
//! in for model servers.
//!
//! ```text
//!  Cluster   etcd, kube-apiserver           one a test program
//!  World     a namespace, controller, picker, Envoy    one a test
//!  Kubelet   pods: a simulator at an address of its own, and the status that says so
//! ```
//!
//! Everything a world starts ends with it, and nothing is shared between worlds but the cluster.

mod browser;
mod client;
mod cluster;
mod collector;
mod compare;
pub mod conformance;
mod deployed;
mod engines;
mod eventually;
mod faulty;
mod gateway;
mod kubelet;
pub mod lab;
mod llama;
mod port;
mod process;
mod scale;
mod soak;
mod tools;
mod world;

pub use browser::Browser;
pub use client::{Answer, Client};
pub use cluster::{Cluster, Credentials, Killed, kubectl};
pub use collector::{Collector, Span};
pub use compare::{Compare, echo, write_table};
pub use deployed::Deployed;
pub use engines::Engines;
pub use eventually::{PATIENCE, eventually};
pub use faulty::{Fault, FaultyApi};
pub use gateway::{envoy_module, envoy_module_says};
pub use kubelet::{Kubelet, PodSpec};
pub use llama::Llama;
pub use port::Port;
pub use process::{Process, end, end_all, memory};
pub use scale::Scale;
pub use soak::{Soak, Summary};
pub use tools::{
    binary, browser, clients_python, envoy, envoy_gateway, gateway_api, h2spec, helm, older_envoys, prometheus, root,
};
pub use world::{Options, PickerPorts, Replica, World};
