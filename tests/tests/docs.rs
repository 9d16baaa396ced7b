//! What the docs promise is so: every annotation has its row and its state, every flag is named, every link leads
//! somewhere.

#[path = "docs/annotations.rs"]
mod annotations;
#[path = "docs/links.rs"]
mod links;
#[path = "docs/pages.rs"]
mod pages;

use clap::CommandFactory;
use gateway_user::cli::args::Cli;

use pages::{all, read};

#[test]
fn every_flag_of_run_is_in_the_docs() {
    let pages: String = all().iter().map(|page| read(page)).collect();
    let mut command = Cli::command();
    command.build();
    let run = command.find_subcommand("run").expect("run");
    let mut flags = 0;
    for long in run.get_arguments().filter_map(|arg| arg.get_long()) {
        let ends =
            |rest: &str| !rest.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '-');
        let flag = format!("--{long}");
        let named = pages
            .match_indices(&flag)
            .any(|(at, _)| ends(&pages[at + flag.len()..]));
        assert!(named, "{flag} is in no page");
        flags += 1;
    }
    assert!(flags > 10);
}

#[test]
fn every_command_is_in_the_readme() {
    let readme = read("README.md");
    let command = Cli::command();
    for sub in command.get_subcommands() {
        assert!(
            readme.contains(&format!("`{}", sub.get_name()))
                || readme.contains(&format!("fleetgate {}", sub.get_name())),
            "{}",
            sub.get_name()
        );
    }
}

#[test]
fn the_docs_stand_alone() {
    for page in all() {
        // A path out of the repository, or of somebody's machine.
        for word in ["](../../", "](/", "/home/", "/root/"] {
            let found = read(&page).contains(word) && !page.starts_with("deploy/");
            assert!(!found, "{page} holds {word}");
        }
    }
}

/// What follows `fleetgate SUB` up to the end of the command.
fn commands<'a>(text: &'a str, sub: &str) -> Vec<&'a str> {
    let name = format!("fleetgate {sub} ");
    let starts = text
        .match_indices(&name)
        .map(|(at, _)| &text[at + name.len()..]);
    let end = |rest: &&str| rest.find(['`', '\n', '#', ';']).unwrap_or(rest.len());
    starts.map(|rest| &rest[..end(&rest)]).collect()
}

#[test]
fn every_flag_that_the_docs_give_to_a_command_is_one_of_it() {
    let mut command = Cli::command();
    command.build();
    let mut flags = 0;
    for page in all() {
        let text = read(&page);
        for sub in command.get_subcommands() {
            let known: Vec<&str> = sub
                .get_arguments()
                .filter_map(|arg| arg.get_long())
                .collect();
            for line in commands(&text, sub.get_name()) {
                let words = line.split([' ', '[', ']', '(', ')', '=', '|', '"']);
                for flag in words
                    .filter_map(|word| word.strip_prefix("--"))
                    .filter(|word| !word.is_empty())
                {
                    let name = sub.get_name();
                    assert!(
                        known.contains(&flag),
                        "{page}: `fleetgate {name}` has no --{flag}"
                    );
                    flags += 1;
                }
            }
        }
    }
    assert!(flags > 20, "only {flags} flags were found");
}
