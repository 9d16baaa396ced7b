//! OpenMetrics text, read from the maps when somebody scrapes.
//!
//! Invariant: labels name objects of the configuration, never a client.

mod fleet;
mod health;
mod kernel;
mod proxy;
mod readings;

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};

pub use self::{
    fleet::FleetCounters,
    health::{GroupHealth, HealthCounters},
    kernel::Kernel,
    proxy::ProxyCounters,
    readings::Readings,
};

/// Everything a scrape shows, taken at one time.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// The kernel's part; `None` if the maps could not be read, which leaves its metrics out.
    pub kernel: Option<Kernel>,
    /// The proxy's part.
    pub proxy: ProxyCounters,
    /// The part of the fleet's API servers.
    pub fleet: FleetCounters,
    /// The part of health checks.
    pub health: HealthCounters,
}

/// Makes a [`Scrape`]. Called from a thread that may block.
pub type Source = dyn Fn() -> Scrape + Send + Sync;

/// The registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics whose values come from `source`.
    pub fn new(source: impl Fn() -> Scrape + Send + Sync + 'static) -> Self {
        let mut registry = Registry::with_prefix("fleetgate");
        registry.register_collector(Box::new(Scraper {
            source: Arc::new(source),
        }));
        Self { registry }
    }

    /// The text of one scrape (OpenMetrics 1.0). Blocks while the maps are read.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

struct Scraper {
    source: Arc<Source>,
}

impl fmt::Debug for Scraper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scraper")
    }
}

impl Collector for Scraper {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let scrape = (self.source)();
        if let Some(kernel) = &scrape.kernel {
            kernel.encode(&mut encoder)?;
        }
        scrape.fleet.encode(&mut encoder)?;
        scrape.health.encode(&mut encoder)?;
        scrape.proxy.encode(&mut encoder)
    }
}

/// Kinds of a family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Counter,
    Gauge,
}

/// Writes one family: its labels are (name, value) pairs.
fn family<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    kind: Kind,
    (name, help): (&str, &str),
    values: impl IntoIterator<Item = ([(&'static str, &'a str); N], u64)>,
) -> fmt::Result {
    use prometheus_client::{encoding::NoLabelSet, metrics::MetricType};
    let metric_type = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
    for (labels, value) in values {
        match (kind, N) {
            (Kind::Counter, 0) => metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            (Kind::Gauge, 0) => metric.encode_gauge(&value)?,
            (Kind::Counter, _) => metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            (Kind::Gauge, _) => metric.encode_family(&labels)?.encode_gauge(&value)?,
        }
    }
    Ok(())
}
