//! What an emulator says of its processors, over its monitor (QMP, JSON lines on a Unix socket; `docs/interop/qmp-spec.txt`
//! of QEMU).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// An emulator whose main loop hangs too does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The registers of all processors, as QEMU prints them for people.
pub(super) fn registers(socket: &Path) -> Result<String> {
    let mut monitor = Monitor::connect(socket)?;
    let said = monitor.ask("human-monitor-command", &json!({"command-line": "info registers -a"}))?;
    Ok(said.as_str().context("the monitor's answer is no text")?.replace('\r', ""))
}

/// Of all registers those that say where a processor is, whether interrupts reach it (`RFL`, bit 9) and whether it waits.
pub(super) fn places(registers: &str) -> String {
    let telling = ["RIP=", "RFL=", "CPL=", "HLT="];
    let words = registers.split_whitespace().filter(|word| telling.iter().any(|name| word.starts_with(name)));
    words.collect::<Vec<_>>().join(" ")
}

struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connect to the emulator's monitor")?;
        stream.set_read_timeout(Some(PATIENCE)).context("set the monitor's patience")?;
        let mut monitor = Self(BufReader::new(stream));
        monitor.answer().context("read the monitor's greeting")?;
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let order = json!({"execute": command, "arguments": arguments});
        writeln!(self.0.get_mut(), "{order}").context("write to the monitor")?;
        loop {
            let mut answer = self.answer()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("the monitor refuses {command}: {error}");
            }
            // An event.
        }
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).context("read from the monitor")?;
        serde_json::from_str(&line).context("understand the monitor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_every_processor() {
        let registers = "CPU#0\nRAX=00 RBX=01\nRIP=ff81 RFL=0246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\nES =0000\n\n\
                         CPU#1\nRAX=00 RBX=01\nRIP=7f10 RFL=0202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0\nES =0000\n";
        assert_eq!(places(registers), "RIP=ff81 RFL=0246 CPL=0 HLT=1 RIP=7f10 RFL=0202 CPL=3 HLT=0");
    }
}
