//! The fields of an organization as flags, made from the table of fields.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::domain::{Change, Field, Patch};

/// The flags of a new organization's fields, or those that change an organization.
#[derive(Debug)]
pub(super) struct FieldArgs<const IS_NEW: bool>(pub(super) Patch<String>);

fn flag(prefix: &str, field: Field) -> String {
    format!("{prefix}{}", field.path().replace('_', "-"))
}

impl<const IS_NEW: bool> Args for FieldArgs<IS_NEW> {
    fn augment_args(command: Command) -> Command {
        Field::ALL.into_iter().fold(command, |command, field| {
            let noun = field.facts().noun;
            let set = Arg::new(field.path())
                .long(flag("", field))
                .required(IS_NEW && field.facts().is_required);
            let set = set.value_name(field.path().to_uppercase());
            if IS_NEW {
                return command.arg(set.help(format!("Its {noun}")));
            }
            let command = command.arg(set.help(format!("Its new {noun}")));
            if field.facts().is_required {
                return command;
            }
            let clear = Arg::new(flag("clear-", field)).long(flag("clear-", field));
            let clear = clear.action(ArgAction::SetTrue).conflicts_with(field.path());
            command.arg(clear.help(format!("Take its {noun} away")))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const IS_NEW: bool> FromArgMatches for FieldArgs<IS_NEW> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Patch::from_fn(|field| {
            // An error: there is no such flag.
            let is_cleared = matches.try_get_one(&flag("clear-", field)).ok().flatten();
            match matches.get_one::<String>(field.path()) {
                Some(value) => Change::Set(value.clone()),
                None if is_cleared == Some(&true) => Change::Clear,
                None => Change::Keep,
            }
        })))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
