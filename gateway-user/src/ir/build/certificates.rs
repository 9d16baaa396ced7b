//! Which Secrets can serve, of those that Ingresses and AlbConfigs name for TLS.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::notes::Notes;
use crate::{
    ir::model::{Certificate, Tls},
    manifest::{NamespacedName, Snapshot},
    problem::shown,
    tls::{
        certificate::{self, Fault},
        client_auth,
        names::Names,
    },
};

/// What was found in Secrets; looked at again only when they change.
#[derive(Debug, Default)]
pub(super) struct Judged {
    certificates: BTreeMap<NamespacedName, Result<Arc<Names>, Fault>>,
    authorities: BTreeMap<NamespacedName, Result<(), Fault>>,
}

impl Judged {
    pub(super) fn forget(&mut self, changed: &BTreeSet<NamespacedName>) {
        for name in changed {
            self.certificates.remove(name);
            self.authorities.remove(name);
        }
    }
}

/// Secrets of one gateway that were good once since it names them: what they held then serves on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct GoodSecrets {
    certificates: BTreeSet<NamespacedName>,
    authorities: BTreeSet<NamespacedName>,
}

/// What a Secret can do for a gateway.
pub(super) enum Standing<T> {
    Good(T),
    /// It cannot be used, but what it held before serves on.
    Before(Fault),
    Bad(Fault),
}

/// What an HTTPS listener needs a certificate for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Needed {
    /// Without one it serves nothing.
    Always,
    /// For its rules; TLS of other hosts goes on to pods.
    ForOthers,
    /// TLS of all its hosts goes on to pods.
    Never,
}

/// The Secrets of one gateway, while its listeners are put together.
pub(super) struct Worth<'a> {
    snapshot: &'a Snapshot,
    judged: Judged,
    before: GoodSecrets,
    now: GoodSecrets,
}

impl<'a> Worth<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, judged: Judged, before: GoodSecrets) -> Self {
        Self {
            snapshot,
            judged,
            before,
            now: GoodSecrets::default(),
        }
    }

    pub(super) fn end(self) -> (Judged, GoodSecrets) {
        (self.judged, self.now)
    }

    /// A Secret as a certificate, with the names it is for.
    pub(super) fn certificate(&mut self, name: &NamespacedName) -> Standing<Arc<Names>> {
        let secret = self.snapshot.secrets.get(name).map(Arc::as_ref);
        let judge = || {
            let read = certificate::of(secret)?;
            let names = read.names.iter().map(String::as_str);
            Ok(Arc::new(Names::of(names)))
        };
        let judged = self.judged.certificates.entry(name.clone());
        let judged = judged.or_insert_with(judge).clone();
        let (before, now) = (&self.before.certificates, &mut self.now.certificates);
        stand(judged, name, before, now)
    }

    /// A Secret as that which signs certificates of clients.
    fn authority(&mut self, name: &NamespacedName) -> Standing<()> {
        let secret = self.snapshot.secrets.get(name).map(Arc::as_ref);
        let judge = || client_auth::authorities(secret).map(drop);
        let judged = self.judged.authorities.entry(name.clone());
        let judged = *judged.or_insert_with(judge);
        let (before, now) = (&self.before.authorities, &mut self.now.authorities);
        stand(judged, name, before, now)
    }

    /// Leaves in `tls` what can serve of the AlbConfig's own certificates, and adds those of its Ingresses. Why an HTTPS
    /// listener cannot be served, if it cannot.
    pub(super) fn serving(
        &mut self,
        tls: &mut Tls,
        of_ingresses: &[Certificate],
        place: &str,
        (port, needed): (u16, Needed),
        notes: &mut Notes,
    ) -> Option<String> {
        let field = format!("{place}.certificates");
        tls.certificates
            .retain(|it| self.named(&it.id, &field, "it is not shown", Self::certificate, notes));
        let own = tls.certificates.len();
        for it in of_ingresses {
            let mut named = tls.certificates[..own].iter_mut();
            match named.find(|had| had.id == it.id) {
                Some(had) => had.hosts.extend(it.hosts.iter().cloned()),
                None => tls.certificates.push(it.clone()),
            }
        }
        let mut refused = None;
        let remedy = "name a Secret here as `CertificateId: namespace/name`, or in spec.tls of an Ingress with rules on this listener";
        let none = tls.certificates.is_empty();
        if none && needed == Needed::ForOthers {
            let what = "has no certificate, so only hosts with tls-passthrough are served";
            notes.warning(field, format!("listener HTTPS {port} {what}"), remedy);
        } else if none && needed == Needed::Always {
            notes.error(
                field,
                format!("listener HTTPS {port} has no certificate and is left out"),
                remedy,
            );
            refused = Some("it has no certificate".to_owned());
        }
        if let Some(id) = &tls.client_ca {
            let field = format!("{place}.caCertificates");
            let else_what = "the listener is left out";
            if !self.named(id, &field, else_what, Self::authority, notes) {
                refused = Some("nothing is there to check certificates of clients by".to_owned());
            }
        }
        refused
    }

    /// Whether the Secret that an AlbConfig names can serve.
    fn named<T>(
        &mut self,
        id: &str,
        field: &str,
        else_what: &str,
        stands: impl Fn(&mut Self, &NamespacedName) -> Standing<T>,
        notes: &mut Notes,
    ) -> bool {
        let Some(name) = NamespacedName::read(id) else {
            let message = format!("{} names no Secret, so {else_what}", shown(id));
            notes.error(
                field,
                message,
                "write `CertificateId: namespace/name` of a Secret",
            );
            return false;
        };
        match stands(self, &name) {
            Standing::Good(_) => true,
            Standing::Before(fault) => {
                notes.warning(field, before(&name, fault), fault.remedy());
                true
            }
            Standing::Bad(fault) => {
                let message = format!("Secret {name} {fault}, so {else_what}");
                notes.error(field, message, fault.remedy());
                false
            }
        }
    }
}

fn stand<T>(
    judged: Result<T, Fault>,
    name: &NamespacedName,
    before: &BTreeSet<NamespacedName>,
    now: &mut BTreeSet<NamespacedName>,
) -> Standing<T> {
    let standing = match judged {
        Ok(good) => Standing::Good(good),
        Err(fault) if before.contains(name) => Standing::Before(fault),
        Err(fault) => return Standing::Bad(fault),
    };
    now.insert(name.clone());
    standing
}

/// What is said of a Secret that is wrong after it was good.
pub(super) fn before(name: &NamespacedName, fault: Fault) -> String {
    format!("Secret {name} {fault}, so what it held before serves on")
}
