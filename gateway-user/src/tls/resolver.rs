//! Which certificate a client is shown, by the name it asks for.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    certificate::Certificate,
    names::{Names, host_of},
};

/// One certificate of a table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// Hosts that it was named for.
    pub hosts: Vec<String>,
}

/// Certificates, the default one first, and which of them a host gets. Never changed, only replaced.
#[derive(Default)]
pub struct Table {
    entries: Vec<Entry>,
    names: Names,
}

impl Table {
    /// Hosts that an Ingress names a certificate for come before those that certificates name themselves.
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut names = Names::default();
        for (index, entry) in entries.iter().enumerate() {
            for host in &entry.hosts {
                names.insert(host, index);
            }
        }
        for (index, entry) in entries.iter().enumerate() {
            for name in &entry.certificate.names {
                names.insert(name, index);
            }
        }
        Self { entries, names }
    }

    /// Position of the certificate for a host: by its name, otherwise the default one.
    fn index(&self, host: Option<&str>) -> usize {
        host.and_then(|host| self.names.find(host)).unwrap_or(0)
    }

    fn same(&self, other: &[Entry]) -> bool {
        let one_is = |(one, other): (&Entry, &Entry)| {
            Arc::ptr_eq(&one.certificate, &other.certificate) && one.hosts == other.hosts
        };
        self.entries.len() == other.len() && self.entries.iter().zip(other).all(one_is)
    }
}

/// Hands out certificates of a table that may be replaced at any time. Lookups take no lock.
#[derive(Default)]
pub struct Resolver {
    table: ArcSwap<Table>,
}

impl Resolver {
    /// Shows these from the next handshake on; `false` where they were shown already.
    pub fn replace(&self, entries: Vec<Entry>) -> bool {
        let changed = !self.table.load().same(&entries);
        if changed {
            self.table.store(Arc::new(Table::new(entries)));
        }
        changed
    }

    /// Whether a request for `authority` (`host` or `host:port`) may be answered on a connection whose client asked
    /// for `sni`: both get the same certificate. `false` is 421 (RFC 9110 section 15.5.20).
    ///
    /// A client that asked for no name had no choice to make, and connects anew for each name.
    pub fn covers(&self, sni: Option<&str>, authority: &str) -> bool {
        let Some(sni) = sni else {
            return true;
        };
        let host = host_of(authority);
        if host.eq_ignore_ascii_case(sni) {
            return true;
        }
        let table = self.table.load();
        table.index(Some(sni)) == table.index(Some(host))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let entry = table.entries.get(table.index(hello.server_name()))?;
        Some(Arc::clone(&entry.certificate.key))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.table.load().entries).finish()
    }
}
