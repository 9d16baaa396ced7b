//! The agent on a fleet of API servers, whose members' endpoints are the lab's pods.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::lab::topology::{self, GATEWAY, HTTP_PORT};

use super::{
    Gateway, eventually,
    manifests::{self, Ingress},
    observer::Pods,
};
use crate::apiserver::{ApiServer, Login, Options, Resource, Verb};

/// Steered by the kernel.
pub const WEB: u16 = 8001;
/// Steered by the proxy.
pub const SHOP: u16 = 8002;
/// IDs of the members.
pub const MEMBERS: [&str; 2] = ["c1", "c2"];
/// Namespace of the Secrets that name members.
pub const SECRETS: &str = "fleetgate-system";
/// Where the fleet's API server listens; the members follow. No outgoing connection takes such a port.
const FLEET_PORT: u16 = 6443;
/// Everything the source follows on the fleet's server, without the Secrets that name members.
pub const FLEET_LISTS: [Resource; 4] = [
    Resource::AlbConfigs,
    Resource::IngressClasses,
    Resource::Ingresses,
    Resource::Secrets,
];
/// Everything the source follows on a member's server.
pub const MEMBER_LISTS: [Resource; 2] = [Resource::Services, Resource::EndpointSlices];

/// API servers in the gateway's network namespace, and a gateway that follows them.
#[derive(Debug)]
pub struct Fleet {
    /// The lab, and the agent when it runs. First, so that the agent ends before its servers do.
    pub gateway: Gateway,
    /// The fleet's API server.
    pub fleet: ApiServer,
    members: BTreeMap<&'static str, ApiServer>,
    folder: TempDir,
}

impl Fleet {
    /// An AlbConfig with the listeners [`WEB`] and [`SHOP`], an Ingress for each, and in both members Service `web`
    /// with all pods. No agent runs yet.
    pub fn new() -> Result<Self> {
        let fleet = Self::empty()?;
        fleet.apply(&manifests::gateway(&[WEB, SHOP], ""))?;
        fleet.apply(&Ingress::new("web", WEB).yaml())?;
        fleet.apply(&Ingress::new("shop", SHOP).steering("request").yaml())?;
        for (path, text) in manifests::clusters("web", HTTP_PORT, "None", |_| true) {
            let id = path.split('/').nth(1).context("a cluster's file")?;
            put(fleet.member(id), &text)?;
        }
        Ok(fleet)
    }

    /// Servers that hold nothing.
    pub fn empty() -> Result<Self> {
        let gateway = Gateway::new()?;
        let server = |nth: u16| {
            ApiServer::start(Options {
                namespace: Some(GATEWAY.to_owned()),
                port: FLEET_PORT + nth,
                first_revision: 1_000 * u64::from(nth + 1),
                ..Options::default()
            })
        };
        let mut this = Self {
            gateway,
            fleet: server(0)?,
            members: [("c1", server(1)?), ("c2", server(2)?)].into(),
            folder: tempfile::tempdir()?,
        };
        let servers = [("fleet", &this.fleet), ("c1", this.member("c1"))];
        for (id, server) in servers.into_iter().chain([("c2", this.member("c2"))]) {
            fs::write(this.file(id), server.kubeconfig(Login::Nobody)?)?;
        }
        let mut source = vec!["--fleet".to_owned(), this.file("fleet")];
        for id in MEMBERS {
            source.extend(["--cluster".to_owned(), format!("{id}={}", this.file(id))]);
        }
        this.gateway.source = source;
        Ok(this)
    }

    /// [`Self::new`] with the agent running, everything followed, and the status written.
    pub fn running() -> Result<Self> {
        let mut this = Self::new()?;
        this.gateway.start()?;
        this.until_followed()?;
        Ok(this)
    }

    /// Members are named by Secrets from now on, instead of by flags.
    pub fn members_by_secret(&mut self) {
        let fleet = self.file("fleet");
        let source = ["--fleet", &fleet, "--cluster-secrets", SECRETS];
        self.gateway.source = source.map(str::to_owned).to_vec();
    }

    /// The Secret that makes a server a member.
    pub fn secret(&self, id: &str) -> Result<Value> {
        let kubeconfig = self.member(id).kubeconfig(Login::Nobody)?;
        Ok(
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"namespace": SECRETS, "name": id, "labels": {"fleetgate.io/cluster": id}},
            "stringData": {"kubeconfig": kubeconfig}}),
        )
    }

    /// A member's API server.
    pub fn member(&self, id: &str) -> &ApiServer {
        &self.members[id]
    }

    /// Creates or replaces objects of the fleet.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        put(&self.fleet, yaml)
    }

    /// In each member just those of these pods that are its own are ready endpoints of Service `web`.
    pub fn endpoints(&self, id: &str, pods: &[&str]) -> Result<()> {
        let ready = |name: &str| pods.contains(&name);
        let files = manifests::clusters("web", HTTP_PORT, "None", ready);
        let own = |(path, _): &&manifests::File| path.contains(&format!("/{id}/"));
        let (_, text) = files.iter().find(own).context("no such member")?;
        put(self.member(id), text)
    }

    /// Waits until every list is watched, and what there is was written back.
    pub fn until_followed(&self) -> Result<()> {
        eventually("everything is followed", || {
            let fleet = FLEET_LISTS.map(|it| self.fleet.count(Verb::Watch, it));
            let members =
                MEMBERS.map(|id| MEMBER_LISTS.map(|it| self.member(id).count(Verb::Watch, it)));
            let followed = fleet
                .iter()
                .chain(members.iter().flatten())
                .all(|it| *it > 0);
            let said = self.status("shop")["ingress"].is_array() && self.events("shop").len() == 1;
            Ok((followed && said, (fleet, members, self.status("shop"))))
        })
    }

    /// Starts counting requests anew.
    pub fn clear(&self) {
        self.fleet.clear_journal();
        self.members.values().for_each(ApiServer::clear_journal);
    }

    /// Lists since then: of the fleet's server, and of each member's.
    pub fn lists(&self) -> (Vec<u64>, BTreeMap<&'static str, Vec<u64>>) {
        let of = |server: &ApiServer, resources: &[Resource]| {
            let counts = resources.iter().map(|it| server.count(Verb::List, *it));
            counts.collect::<Vec<_>>()
        };
        let members = self.members.iter();
        (
            of(&self.fleet, &FLEET_LISTS),
            members
                .map(|(id, server)| (*id, of(server, &MEMBER_LISTS)))
                .collect(),
        )
    }

    /// `status.loadBalancer.subClusters` of the gateway.
    pub fn sub_clusters(&self) -> Value {
        let gateway = self.fleet.get(Resource::AlbConfigs, None, "mcg");
        gateway.map_or(Value::Null, |it| {
            it["status"]["loadBalancer"]["subClusters"].clone()
        })
    }

    /// `status.loadBalancer` of an Ingress in namespace `demo`.
    pub fn status(&self, ingress: &str) -> Value {
        let object = self.fleet.get(Resource::Ingresses, Some("demo"), ingress);
        object.map_or(Value::Null, |it| it["status"]["loadBalancer"].clone())
    }

    /// Events about an object: reason and note, sorted.
    pub fn events(&self, name: &str) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = self.fleet.list(Resource::Events, None);
        let about = events.iter().filter(|it| it["regarding"]["name"] == name);
        let mut told: Vec<_> = about
            .map(|it| (text(&it["reason"]), text(&it["note"])))
            .collect();
        told.sort();
        told
    }

    fn file(&self, id: &str) -> String {
        self.folder.path().join(id).display().to_string()
    }
}

/// Creates or replaces the objects of a text.
pub fn put(server: &ApiServer, yaml: &str) -> Result<()> {
    for object in serde_saphyr::from_multiple::<Value>(yaml)? {
        if !object.is_null() {
            server
                .put(object)
                .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        }
    }
    Ok(())
}

/// Addresses of these pods, where Service `web` leads to.
pub fn addresses(names: &[&str]) -> Pods {
    let named = topology::pods().into_iter();
    named
        .filter(|pod| names.contains(&pod.name.as_str()))
        .map(|pod| SocketAddr::from((pod.address, HTTP_PORT)))
        .collect()
}

/// The bar for a change of somebody who can be reached.
pub const AT_ONCE: Duration = Duration::from_secs(1);
/// The bar for recovery.
pub const RECOVERY: Duration = Duration::from_secs(5);
