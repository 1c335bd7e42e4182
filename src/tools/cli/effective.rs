//! The settings of `tine serve`: the defaults, over them the file of `--config`, over that the flags that were given.

use std::process::ExitCode;

use tine::{LimitAction, Listener, Mode, Settings};

use super::config::{File, Given, Program, differences};
use super::serve::{LimitName, ModeName, Serve};

impl Serve {
    /// Returns the settings.
    ///
    /// # Errors
    /// What is wrong, with file and line where a file is the cause.
    pub(super) fn effective(&self, given: &Given) -> Result<File, String> {
        let mut file = match &self.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        self.apply_to_program(given, &mut file.program);
        self.apply_to_policies(given, &mut file.settings);
        self.apply_to_workers(&mut file.settings);
        self.apply_to_limits(given, &mut file.settings);
        self.apply_to_listeners(given, &mut file.settings)?;
        // Without a file the server reports it when it starts.
        if (self.config.is_some() || self.check || self.print_config)
            && let Err(error) = file.settings.check()
        {
            let place = self.config.as_ref().map(|path| file.place(path, &error));
            return Err(format!("{}{error}", place.unwrap_or_default()));
        }
        Ok(file)
    }

    fn apply_to_program(&self, given: &Given, program: &mut Program) {
        if given.has("handler") {
            program.handler = self.handler;
        }
        if given.has("work") {
            program.work = self.work;
        }
        if given.has("faults") {
            program.faults.clone_from(&self.faults);
        }
        program.log_callbacks |= self.log_callbacks;
        if given.has("log_level") {
            program.log_level = self.logs.log_level;
        }
        if given.has("log_file") {
            program.log_file.clone_from(&self.logs.log_file);
        }
        if given.has("log_format") {
            program.log_format = self.logs.log_format;
        }
    }

    fn apply_to_policies(&self, given: &Given, settings: &mut Settings) {
        if given.has("mode") {
            settings.mode = match self.mode {
                ModeName::Process => Mode::Process,
                ModeName::Base => Mode::Base,
            };
        }
        if given.has("dispatch") {
            settings.dispatch = self.dispatch.into();
        }
        if given.has("on_crash") {
            settings.on_crash.clone_from(&self.on_crash);
        }
        if given.has("standby") {
            settings.standby = self.standby as usize;
        }
        if given.has("on_limit") {
            settings.on_limit = match self.on_limit {
                LimitName::Warn => LimitAction::Warn,
                LimitName::Kill => LimitAction::Kill,
            };
        }
        if given.has("close_deadline") {
            settings.close_deadline = self.close_deadline.0;
        }
        if given.has("shutdown_deadline") {
            settings.shutdown_deadline = self.shutdown_deadline;
        }
    }

    /// Applies the flags of processes that have no default here.
    fn apply_to_workers(&self, settings: &mut Settings) {
        if let Some(workers) = self.workers {
            settings.workers = workers as usize;
        }
        if let Some(reactors) = self.reactors {
            settings.reactors = Some(reactors as usize);
        }
        if let Some(limit) = self.callback_limit {
            settings.callback_limit = Some(limit);
        }
        if let Some(messages) = self.max_requests {
            settings.max_requests = Some(messages);
        }
        if let Some(bytes) = self.worker_memory {
            settings.worker_memory = Some(bytes as u64);
        }
        if let Some(after) = self.fail_on_crash_loop {
            settings.fail_on_crash_loop = Some(after);
        }
        if let Some(name) = &self.name {
            settings.name = Some(name.clone());
        }
        if let Some(pid) = self.die_with {
            settings.die_with = Some(pid);
        }
        if let Some(path) = &self.pid_file {
            settings.pid_file = Some(path.clone());
        }
    }

    fn apply_to_limits(&self, given: &Given, settings: &mut Settings) {
        if let Some(connections) = self.max_connections {
            settings.max_connections = Some(connections as usize);
        }
        if let Some(connections) = self.max_connections_per_address {
            settings.max_connections_per_address = Some(connections as usize);
        }
        if let Some(bytes) = self.output_limit {
            settings.output_limit = Some(bytes);
        }
        if let Some(bytes) = self.memory_budget {
            settings.memory_budget = Some(bytes);
        }
        if given.has("output_high_water") {
            settings.output_high_water = self.output_high_water;
        }
        if given.has("poison_shown") {
            settings.poison_shown = self.poison_shown;
        }
    }

    /// Listeners that were given take the place of those of the file. The flags about listeners are for all of them.
    fn apply_to_listeners(&self, given: &Given, settings: &mut Settings) -> Result<(), String> {
        let mut addresses: &[String] = &[];
        if given.has("listen") || settings.listen.is_empty() {
            addresses = &self.listen;
            let listeners = addresses.iter().map(|it| Listener::from(it.as_str()));
            settings.listen = listeners.collect();
        }
        for (index, listener) in settings.listen.iter_mut().enumerate() {
            let mut changed = listener.clone();
            if given.has("protocol") {
                changed = changed.protocol(self.protocol.clone());
            }
            if given.has("max_message") {
                changed = changed.max_message(self.max_message);
            }
            if given.has("backlog") {
                changed = changed.backlog(self.backlog);
            }
            changed = self.opening.apply(self.silence.apply(changed))?;
            // Of those in the file, only the library knows what kind they are.
            let address = addresses.get(index).map_or("", String::as_str);
            *listener = self.sockets.apply(changed, address, addresses);
        }
        Ok(())
    }

    /// Answers `--check`.
    pub(super) fn say_right(&self) -> ExitCode {
        let what = match &self.config {
            Some(path) => format!("{} is right\n", path.display()),
            None => "the flags are right\n".to_owned(),
        };
        say(&what)
    }

    /// Reads the file again, at SIGHUP. `before` are the settings that the server has started with.
    pub(super) fn reread(&self, given: &Given, before: &File) {
        let after = match self.effective(given) {
            Ok(after) => after,
            Err(problem) => {
                log::error!("SIGHUP: the settings stay as they were: {problem}");
                return;
            }
        };
        let mut changed = match (before.table(), after.table()) {
            (Ok(before), Ok(after)) => differences(&before, &after),
            (Err(error), _) | (_, Err(error)) => {
                log::error!("SIGHUP: the settings stay as they were: {error}");
                return;
            }
        };
        changed.retain(|name| name != "log_level");
        tine::logger::set_level(after.program.log_level);
        match changed.is_empty() {
            true => log::info!("SIGHUP: the configuration was read again"),
            false => log::warn!(
                "SIGHUP: the configuration was read again; changed there, and needs a restart: {}",
                changed.join(", ")
            ),
        }
    }
}

/// Answers `--print-config`.
pub(super) fn print_config(effective: &File) -> ExitCode {
    match effective.table() {
        Ok(table) => say(&table.to_string()),
        Err(error) => {
            super::complain(format_args!(
                "the settings can't be written as TOML: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> ExitCode {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(format_args!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}
