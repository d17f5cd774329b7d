//! `top`: load per endpoint, live.

use anyhow::Result;
use http::Method;
use kube::Client;
use thalamus::screen::Screen;
use thalamus::top::{self, Fleet, Pace};

use crate::pickers;

/// The flags of `top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// A picker's admin port, such as http://127.0.0.1:9090. By default all pickers of the namespace are asked, over forwarded ports.
    #[arg(long)]
    picker: Option<String>,

    #[command(flatten)]
    pace: Pace,
}

pub(crate) async fn run(client: &Client, namespace: &str, args: &TopArgs, screen: Screen) -> Result<()> {
    top::show(args.pace, screen, async || {
        let mut fleet = Fleet::default();
        for picker in pickers::find(client, namespace, args.picker.as_deref()).await? {
            fleet.add(&picker.ask(client, Method::GET, "/debug/load", "application/json", Vec::new()).await?)?;
        }
        Ok(fleet)
    })
    .await
}
