use std::time::Duration;

use super::*;
use crate::problem::Problem;

fn object(name: &str) -> ObjectRef {
    ObjectRef {
        kind: "Ingress".into(),
        namespace: "demo".into(),
        name: name.into(),
        ..ObjectRef::default()
    }
}

fn error(name: &str, message: &str) -> Notice {
    let problem = Problem::error(&object(name), "spec", message, "mend it");
    Notice::of_problems(&object(name), Reason::FailedBuildModel, &[&problem])
}

fn success(name: &str, revision: u64) -> Notice {
    Notice::success(object(name), revision, "served".into())
}

struct Room {
    told: Told,
    budget: Bucket,
    now: Instant,
}

impl Room {
    fn new(burst: u32) -> Self {
        let now = Instant::now() + Duration::from_secs(3600);
        Self {
            told: Told::default(),
            budget: Bucket::new(burst, Duration::from_secs(1), now),
            now,
        }
    }

    /// What is told of these notices now: name, reason, and the how manieth time.
    fn tell(&mut self, notices: &[Notice]) -> Vec<(String, &'static str, i32)> {
        self.told.want(notices.iter());
        let mut all = Vec::new();
        while let Telling::Now(notice, times) = self.told.next(&mut self.budget, self.now) {
            self.told.done(&notice);
            all.push((notice.object.name.clone(), notice.reason.name(), times));
        }
        all
    }
}

const BAD: &str = "FailedBuildModel";
const GOOD: &str = "SuccessfullyReconciled";

#[test]
fn the_same_problem_is_told_once_however_often_it_is_found() {
    let mut room = Room::new(100);
    let first = room.tell(&[error("a", "x")]);
    assert_eq!(first, [("a".to_owned(), BAD, 1)]);
    for _ in 0..10 {
        assert_eq!(room.tell(&[error("a", "x")]), []);
    }
    assert_eq!(room.tell(&[error("a", "y")]), [("a".to_owned(), BAD, 1)]);
}

#[test]
fn a_problem_that_comes_back_is_the_second_of_a_series() {
    let mut room = Room::new(100);
    room.tell(&[error("a", "x")]);
    let mended = room.tell(&[success("a", 2)]);
    assert_eq!(mended, [("a".to_owned(), GOOD, 1)]);
    assert_eq!(room.tell(&[error("a", "x")]), [("a".to_owned(), BAD, 2)]);
    assert_eq!(room.tell(&[success("a", 2)]), [("a".to_owned(), GOOD, 2)]);
}

#[test]
fn each_revision_in_force_is_told_once() {
    let mut room = Room::new(100);
    assert_eq!(room.tell(&[success("a", 1)]).len(), 1);
    assert_eq!(room.tell(&[success("a", 1)]), []);
    assert_eq!(room.tell(&[success("a", 2)]).len(), 1);
}

#[test]
fn a_new_leader_does_not_tell_that_what_was_in_force_is_in_force() {
    let mut room = Room::new(100);
    room.told.known_good([object("a"), object("b")]);
    let told = room.tell(&[success("a", 1), error("b", "x"), success("c", 1)]);
    assert_eq!(told, [("b".to_owned(), BAD, 1), ("c".to_owned(), GOOD, 1)]);
    let told = room.tell(&[success("a", 2), success("b", 2), success("c", 1)]);
    assert_eq!(told, [("b".to_owned(), GOOD, 1), ("a".to_owned(), GOOD, 1)]);
}

#[test]
fn warnings_wait_for_their_budget_and_good_news_does_not() {
    let mut room = Room::new(4);
    let mut notices: Vec<Notice> = (0..3).map(|n| error(&format!("e{n}"), "x")).collect();
    notices.extend((0..10).map(|n| success(&format!("s{n}"), 1)));
    let told = room.tell(&notices);
    assert!(told.iter().all(|(_, reason, _)| *reason == BAD));
    assert_eq!(told.len(), 3);
    assert_eq!(room.told.take_dropped(), 10);
    // A second later there is one more token, and one is left over.
    room.now += Duration::from_secs(1);
    notices.extend((3..8).map(|n| error(&format!("e{n}"), "x")));
    assert_eq!(room.tell(&notices).len(), 2);
    assert_eq!(room.told.waiting(), 3);
    let next = room.told.next(&mut room.budget, room.now);
    assert_eq!(next, Telling::At(room.now + Duration::from_secs(1)));
    room.now += Duration::from_secs(3);
    assert_eq!(room.tell(&notices).len(), 3);
    assert_eq!(room.told.waiting(), 0);
}

#[test]
fn good_news_leaves_half_of_the_budget_to_warnings() {
    let mut room = Room::new(10);
    let good: Vec<Notice> = (0..10).map(|n| success(&format!("s{n}"), 1)).collect();
    assert_eq!(room.tell(&good).len(), 5);
    let bad: Vec<Notice> = (0..10).map(|n| error(&format!("e{n}"), "x")).collect();
    assert_eq!(room.tell(&bad).len(), 5);
}

#[test]
fn that_an_error_is_mended_is_told_however_much_other_good_news_there_is() {
    let mut room = Room::new(4);
    let mut notices: Vec<Notice> = (0..10).map(|n| success(&format!("a{n}"), 1)).collect();
    notices.push(error("b", "x"));
    assert_eq!(room.tell(&notices)[0], ("b".to_owned(), BAD, 1));
    notices[10] = success("b", 2);
    notices[0] = success("a0", 2);
    assert_eq!(room.tell(&notices), [("b".to_owned(), GOOD, 1)]);
    // Once told, it is good news as any other.
    notices[10] = success("b", 3);
    assert_eq!(room.tell(&notices), []);
}

#[test]
fn an_event_that_cannot_be_written_holds_back_no_other() {
    let mut room = Room::new(100);
    let notices = ["a", "b", "c"].map(|name| error(name, "x"));
    room.told.want(notices.iter());
    let mut order = String::new();
    for _ in 0..5 {
        let Telling::Now(notice, 1) = room.told.next(&mut room.budget, room.now) else {
            panic!("something is to be told");
        };
        order.push_str(&notice.object.name);
        match notice.object.name.as_str() {
            "a" => room.told.postpone(&notice),
            _ => room.told.done(&notice),
        }
    }
    assert_eq!(order, "abcaa");
}
