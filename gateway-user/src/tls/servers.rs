//! TLS of all listeners, over time: what a Secret last held that was good serves until it holds something good again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    certificate::{self, Certificate, Fault, Lapse},
    client_auth,
    resolver::Entry,
    server::Server,
};
use crate::{
    ir::{Ir, Listener, ListenerName, Tls},
    manifest::{NamespacedName, Sealed, Secret},
    problem::{ObjectRef, Problem},
};

/// Secrets by name, as a snapshot holds them.
pub type Secrets = BTreeMap<NamespacedName, Arc<Secret>>;

/// A certificate that is over within this many seconds is told: a week.
const SOON_SECONDS: i64 = 7 * 24 * 3_600;

/// Follows the routing model and the Secrets that it names.
#[derive(Debug, Default)]
pub struct Servers {
    certificates: BTreeMap<String, Held<Arc<Certificate>>>,
    authorities: BTreeMap<String, Held<Sealed>>,
    listeners: BTreeMap<ListenerName, Ending>,
}

/// A listener that ends TLS.
#[derive(Debug)]
struct Ending {
    uses: Tls,
    server: Option<Arc<Server>>,
}

/// What of a Secret serves.
#[derive(Debug)]
struct Held<T> {
    /// The Secret that was looked at last.
    seen: Option<Arc<Secret>>,
    /// Of the last one that was good.
    good: Option<T>,
}

impl<T> Held<T> {
    /// Looks at the Secret, if it is another one than before. What it names is kept where it cannot be used.
    fn look(
        &mut self,
        secret: Option<&Arc<Secret>>,
        read: impl FnOnce(Option<&Secret>) -> Result<T, Fault>,
    ) {
        let same = match (&self.seen, secret) {
            (Some(had), Some(has)) => {
                let alike = had.secret_type == has.secret_type && had.data == has.data;
                Arc::ptr_eq(had, has) || alike
            }
            (had, has) => had.is_none() && has.is_none(),
        };
        if same {
            return;
        }
        self.seen = secret.cloned();
        if let Ok(good) = read(secret.map(Arc::as_ref)) {
            self.good = Some(good);
        }
    }
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self {
            seen: None,
            good: None,
        }
    }
}

impl Servers {
    /// Follows the listeners in `touched`: those that differ, and those that a changed Secret serves.
    pub fn update<'a>(
        &mut self,
        ir: &Ir,
        touched: impl IntoIterator<Item = &'a ListenerName>,
        secrets: &Secrets,
    ) {
        let mut moved = false;
        for name in touched {
            let served = |it: &&Arc<Listener>| it.refused.is_none();
            let listener = ir.listeners.get(name).filter(served);
            match listener.and_then(|it| it.settings.tls.as_ref()) {
                Some(tls) => {
                    let ending = self.ending(name, tls, secrets);
                    self.listeners.insert(name.clone(), ending);
                    moved = true;
                }
                None => moved |= self.listeners.remove(name).is_some(),
            }
        }
        if moved {
            self.forget();
        }
    }

    /// What a listener ends TLS with. `None` for one that does not, and for one that cannot: no Secret of it was ever
    /// good, or that for certificates of clients was not.
    pub fn server(&self, name: &ListenerName) -> Option<&Arc<Server>> {
        self.listeners.get(name)?.server.as_ref()
    }

    /// What time makes of the certificates that serve, at `now` in seconds since 1970. All else that may be wrong with
    /// them is told by who names them.
    pub fn problems(&self, now: i64) -> Vec<Problem> {
        let lapsed = self.certificates.iter().filter_map(|(id, held)| {
            let certificate = held.good.as_ref()?;
            let NamespacedName { namespace, name } = NamespacedName::read(id)?;
            let secret = ObjectRef {
                cluster: None,
                kind: "Secret".to_owned(),
                namespace,
                name,
            };
            let Certificate { from, until, .. } = &**certificate;
            let message = match certificate.lapse(now, SOON_SECONDS)? {
                Lapse::NotYet => {
                    format!("the certificate is not good before {from}, so clients refuse it")
                }
                Lapse::Soon => format!("the certificate is good until {until} only"),
                Lapse::Over => {
                    format!("the certificate was good until {until}, so clients refuse it")
                }
            };
            let remedy = "put a new certificate into the Secret; it serves without a restart";
            Some(Problem::warning(&secret, "data[tls.crt]", message, remedy))
        });
        lapsed.collect()
    }

    fn ending(&mut self, name: &ListenerName, tls: &Tls, secrets: &Secrets) -> Ending {
        let secret = |id: &str| NamespacedName::read(id).and_then(|name| secrets.get(&name));
        let mut entries = Vec::with_capacity(tls.certificates.len());
        for it in &tls.certificates {
            let held = self.certificates.entry(it.id.clone()).or_default();
            held.look(secret(&it.id), |it| certificate::of(it).map(Arc::new));
            if let Some(certificate) = &held.good {
                entries.push(Entry {
                    certificate: Arc::clone(certificate),
                    hosts: it.hosts.clone(),
                });
            }
        }
        let mut clients = None;
        if let Some(id) = &tls.client_ca {
            let held = self.authorities.entry(id.clone()).or_default();
            held.look(secret(id), client_auth::authorities);
            clients = held.good.as_ref();
        }
        // Never without the check that was asked for.
        let unchecked = tls.client_ca.is_some() && clients.is_none();
        let before = self.listeners.get(name).and_then(|it| it.server.as_ref());
        let server = (!entries.is_empty() && !unchecked)
            .then(|| Server::build(tls, entries, clients, before).ok())
            .flatten();
        Ending {
            uses: tls.clone(),
            server,
        }
    }

    /// Keys that nobody names any more do not stay.
    fn forget(&mut self) {
        let used = self.listeners.values().map(|it| &it.uses);
        let (mut certificates, mut authorities) = (BTreeSet::new(), BTreeSet::new());
        for tls in used {
            certificates.extend(tls.certificates.iter().map(|it| it.id.as_str()));
            authorities.extend(tls.client_ca.as_deref());
        }
        self.certificates
            .retain(|id, _| certificates.contains(id.as_str()));
        self.authorities
            .retain(|id, _| authorities.contains(id.as_str()));
    }
}
