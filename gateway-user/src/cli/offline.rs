//! `fleetgate check` and `fleetgate plan`: what manifests mean, without a kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use serde::Serialize;

use super::{
    args::{CheckArgs, PlanArgs},
    output::{Failure, Outcome, View, show},
    table::{Paint, Table, Tone},
    units,
    views::{RoutesView, problems, routes},
};
use crate::{
    check::{self, Compiled, Layout, Report, Summary},
    ir::{Ir, Options},
    plan::{self, Inputs, Mode, Plan},
    problem::{Problem, Severity},
};

/// `fleetgate check`: exit 1 if there is any problem.
pub fn check(args: &CheckArgs) -> Result<Outcome, Failure> {
    let report = check::check(&args.path);
    let outcome = if report.clean() {
        Outcome::Fine
    } else {
        Outcome::Negative
    };
    show(&CheckView::from(report), args.output.format)?;
    Ok(outcome)
}

/// `fleetgate plan`: exit 1 if an object is in error, or something does not fit.
pub fn plan(args: &PlanArgs) -> Result<Outcome, Failure> {
    let options = Options {
        steering: args.steering.into(),
    };
    let Compiled {
        layout,
        ir,
        problems,
        ..
    } = check::compile(&args.path, options);
    let (plan, left_out) = planned(&ir, &args.vip);
    let mut view = PlanView::new(
        &ir,
        &args.vip,
        &plan,
        plan::ring_seed(&args.ring_secret),
        problems,
        left_out,
    );
    view.layout = layout;
    show(&view, args.output.format)?;
    Ok(if view.in_error() {
        Outcome::Negative
    } else {
        Outcome::Fine
    })
}

/// The plan of a first start. Routes are not known here: one source address stands for the node's.
fn planned(ir: &Ir, vips: &[IpAddr]) -> (Plan, Vec<String>) {
    let node = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let routes: BTreeMap<IpAddr, IpAddr> = ir
        .groups
        .values()
        .flat_map(|group| group.pods())
        .map(|backend| (backend.address.ip(), node))
        .collect();
    let inputs = Inputs {
        vips,
        pool: &[],
        routes: &routes,
        node_ports: (0, 0),
        busy: Some(&BTreeSet::new()),
    };
    plan::build(ir, &inputs, &Plan::default())
}

/// See [`check`].
#[derive(Clone, Debug, Serialize)]
pub struct CheckView {
    /// Nothing to mend.
    pub ok: bool,
    /// Sorted by object.
    pub problems: Vec<Problem>,
    /// Counts.
    pub summary: Summary,
}

impl From<Report> for CheckView {
    fn from(report: Report) -> Self {
        Self {
            ok: report.clean(),
            problems: report.problems,
            summary: report.summary,
        }
    }
}

impl View for CheckView {
    fn text(&self, paint: Paint) -> String {
        let (tone, verdict) = if self.ok {
            (Tone::Good, "nothing to mend")
        } else {
            (Tone::Bad, "to be mended")
        };
        format!(
            "{}{}\n{}\n",
            problems(&self.problems, paint),
            self.summary,
            paint.paint(tone, verdict)
        )
    }
}

/// See [`plan`].
#[derive(Clone, Debug, Serialize)]
pub struct PlanView {
    /// Listeners with their rules.
    pub routes: RoutesView,
    /// What the kernel's service map would hold.
    pub services: Vec<PlannedService>,
    /// Backends that the kernel would know.
    pub backends: usize,
    /// What is wrong with the objects.
    pub problems: Vec<Problem>,
    /// What does not fit the bounded tables.
    pub left_out: Vec<String>,
    /// How the path was read.
    pub layout: Layout,
}

/// One listener address.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedService {
    /// `tcp/10.0.0.1:80`.
    pub address: String,
    /// Listener in the routing model.
    pub listener: String,
    /// `connection` or `request`.
    pub mode: &'static str,
    /// Slots of its ring.
    pub ring_length: u32,
    /// Pods in the ring.
    pub members: Vec<PlannedMember>,
}

/// One pod of a ring.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedMember {
    /// Member cluster.
    pub cluster: String,
    /// Pod.
    pub pod: String,
    /// Share by weight, 0 to 1.
    pub share: f64,
    /// Slots of the ring.
    pub slots: u32,
    /// Fraction of the ring, 0 to 1: what clients get.
    pub ring_share: f64,
}

impl PlanView {
    fn new(
        ir: &Ir,
        vips: &[IpAddr],
        plan: &Plan,
        seed: u64,
        problems: Vec<Problem>,
        left_out: Vec<String>,
    ) -> Self {
        let service = |(address, service): (&plan::ServiceAddr, &plan::Service)| PlannedService {
            address: address.to_string(),
            listener: service.listener.clone(),
            mode: match service.mode {
                Mode::Connection(_) | Mode::Empty => "connection",
                Mode::Request => "request",
            },
            ring_length: service.mode.ring().map_or(0, |ring| ring.region.len),
            members: service
                .mode
                .ring()
                .map_or_else(Vec::new, |ring| members(plan, ring, seed)),
        };
        Self {
            routes: routes(ir, vips, plan),
            services: plan.services.iter().map(service).collect(),
            backends: plan.backends.len(),
            problems,
            left_out,
            layout: Layout::default(),
        }
    }

    fn in_error(&self) -> bool {
        let error = |p: &Problem| p.severity == Severity::Error;
        !self.left_out.is_empty() || self.problems.iter().any(error)
    }
}

fn members(plan: &Plan, ring: &plan::Ring, seed: u64) -> Vec<PlannedMember> {
    let mut slots: BTreeMap<u32, u32> = BTreeMap::new();
    for id in plan.slots(ring, seed) {
        *slots.entry(id).or_default() += 1;
    }
    let total = ring.members.iter().map(|m| u64::from(m.weight)).sum();
    let member = |member: &plan::Member| {
        let backend = plan.backends.get(&member.backend)?;
        let mine = slots.get(&member.backend).copied().unwrap_or(0);
        Some(PlannedMember {
            cluster: backend.key.cluster.to_string(),
            pod: backend.pod.to_string(),
            share: units::fraction(u64::from(member.weight), total),
            slots: mine,
            ring_share: units::fraction(u64::from(mine), u64::from(ring.region.len)),
        })
    };
    ring.members.iter().filter_map(member).collect()
}

impl View for PlanView {
    fn text(&self, paint: Paint) -> String {
        let mut out = self.routes.text(paint);
        let mut table = Table::new(&["RING OF", "POD", "WANTED>", "SLOTS>", "SHARE>"]);
        for service in &self.services {
            for (at, member) in service.members.iter().enumerate() {
                let name = if at == 0 {
                    service.address.as_str()
                } else {
                    ""
                };
                table.row([
                    name.into(),
                    format!("{}/{}", member.cluster, member.pod).into(),
                    units::percent(member.share).into(),
                    units::count(u64::from(member.slots)).into(),
                    units::percent(member.ring_share).into(),
                ]);
            }
        }
        if !table.is_empty() {
            out.push('\n');
            out.push_str(&table.render(paint));
        }
        out.push_str(&format!(
            "\n{} listener addresses, {} backends in the kernel\n",
            self.services.len(),
            self.backends
        ));
        if self.layout == Layout::Bundle {
            out.push_str(&format!("read as {}\n", self.layout));
        }
        out.push_str(&problems(&self.problems, paint));
        for item in &self.left_out {
            let name = paint.paint(Tone::Warn, "does not fit");
            out.push_str(&format!("{name}: {item}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::views::sample;

    fn view(problems: Vec<Problem>) -> PlanView {
        let record = sample::record();
        let vips = ["10.0.0.1".parse().unwrap()];
        let (plan, left_out) = planned(&record.ir, &vips);
        PlanView::new(
            &record.ir,
            &vips,
            &plan,
            plan::ring_seed(""),
            problems,
            left_out,
        )
    }

    #[test]
    fn a_plan_shows_wanted_and_real_shares_of_every_ring() {
        let view = view(Vec::new());
        assert!(!view.in_error());
        assert_eq!(view.services[0].mode, "connection");
        let members = &view.services[0].members;
        assert_eq!(members.len(), 3);
        for member in members {
            let error = (member.share - member.ring_share).abs();
            assert!(error < 0.002, "{member:?}");
        }
        assert_eq!(view.services[1].mode, "request");
        let text = view.text(Paint::Plain);
        assert!(
            text.ends_with("\n2 listener addresses, 3 backends in the kernel\n"),
            "{text}"
        );
    }

    #[test]
    fn an_object_in_error_fails_the_plan() {
        assert!(view(sample::record().problems).in_error());
    }
}
