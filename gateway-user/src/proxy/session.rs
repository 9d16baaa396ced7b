//! What one request's cookies say about where it goes, and what its answer tells the client.

use std::{borrow::Cow, rc::Rc};

use super::{
    fields::Name,
    group::GroupState,
    message::{Request, Response},
    sticky::{self, GroupTokens},
};
use crate::ir::Sticky;

/// The session that a request belongs to.
#[derive(Debug)]
pub(super) struct Session {
    group: Rc<GroupState>,
    /// `Cookie` lines as the client sent them; kept only where they matter.
    lines: Vec<Vec<u8>>,
    /// The backend that they name.
    pub(super) asked: Option<usize>,
    /// Names the group that was chosen, where another one was asked for.
    set_group: Option<Vec<u8>>,
}

impl Session {
    /// Reads the cookies, and takes out of them what is none of the backend's business. `groups` are those of the rule,
    /// `place` the one chosen among them and the one asked for.
    pub(super) fn begin(
        request: &mut Request,
        group: &Rc<GroupState>,
        groups: Option<&GroupTokens>,
        (place, asked_group): (Option<usize>, Option<usize>),
        tls: bool,
    ) -> Option<Self> {
        let policy = group.group.policy.sticky.as_ref();
        if policy.is_none() && groups.is_none() {
            return None;
        }
        let lines = request.fields.all(Name::Cookie).map(<[u8]>::to_vec);
        let lines: Vec<Vec<u8>> = lines.collect();
        let each = || lines.iter().map(Vec::as_slice);
        let asked = group.tokens.as_ref().zip(policy);
        let asked = asked.and_then(|(tokens, sticky)| tokens.asked(sticky, each()));
        let set_group = groups.zip(place);
        let set_group = set_group.and_then(|(it, place)| it.insert(place, asked_group, tls));
        request.fields.rewrite(Name::Cookie, |line| {
            sticky::upstream(line, policy, groups).map(Cow::into_owned)
        });
        Some(Self {
            group: Rc::clone(group),
            lines,
            asked,
            set_group,
        })
    }

    /// Has the answer of `chosen` name it.
    pub(super) fn answer(&self, chosen: usize, tls: bool, response: &mut Response) {
        if let Some(line) = &self.set_group {
            response.fields.push_known(Name::SetCookie, line);
        }
        let policy = self.group.group.policy.sticky.as_ref();
        match self.group.tokens.as_ref().zip(policy) {
            Some((tokens, Sticky::Insert(lasts))) => {
                let lines = self.lines.iter().map(Vec::as_slice);
                if let Some((line, cross_site)) = tokens.insert(chosen, lines, *lasts, tls) {
                    response.fields.push_known(Name::SetCookie, &line);
                    if let Some(line) = cross_site {
                        response.fields.push_known(Name::SetCookie, &line);
                    }
                }
            }
            Some((tokens, Sticky::Server(name))) => {
                response.fields.rewrite(Name::SetCookie, |line| {
                    let rewritten = tokens.rewrite(name, chosen, line);
                    Some(rewritten.unwrap_or_else(|| line.to_vec()))
                });
            }
            None => {}
        }
    }
}
