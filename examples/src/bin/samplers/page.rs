//! The page: what was measured, in words and tables.

use crate::diagrams::{COMPARED, Points, Setting, distributions};
use crate::facts::{self, Facts, Kind};
use crate::orders;
use crate::references::References;
use anyhow::Result;
use canvas_sched::by_name::{self, SAMPLERS};
use std::fmt::Write;

/// Writes a table row.
macro_rules! line {
    ($page:expr, $($words:tt)*) => { writeln!($page, $($words)*).expect("writing to a string") };
}

/// The whole page.
///
/// # Errors
/// If a sampler has no row in the table of facts.
pub fn page() -> Result<String> {
    let all: Vec<&Facts> = SAMPLERS.iter().map(|name| facts::of(name)).collect::<Result<_>>()?;
    let references = References::compare();
    let page = INTRODUCTION.replace("{RUNS}", &references.runs().to_string());
    let mut page = page.replace("{COMPARED}", &COMPARED.to_string());
    sources(&mut page, &all, &references)?;
    trajectories(&mut page, &all)?;
    moments(&mut page, &all)?;
    page.push_str(MISSING);
    Ok(page)
}

const INTRODUCTION: &str = "\
# Samplers, measured

`cargo run --release --bin samplers` writes this page and its diagrams; `-- --check` fails if the page is not what it
would write. Everything but the names of papers is measured. The names in the first column are those of
`canvas_sched::by_name::sampler` and of `--scheduler`. How to read the others:

- *Off by at most*: {RUNS} runs of diffusers 0.42.1 and k-diffusion 0.1.1 in 64 bits, over their settings, grids and
  numbers of steps, are repeated here; this is the largest distance of any state, relative to the state's largest number,
  rounded up to a power of ten. A class of diffusers may stand for several samplers: its worst run counts for each. Not
  in this column are the few runs that `LOOSE` in [tests/sched/diffusers.rs](tests/sched/diffusers.rs) lists with the
  cause of each.
- *Calls a step*: evaluations of the network, counted; `+ 9`: so many more in a whole run.
- *Order*: the `p` of `error ~ steps^-p`, between 192 and 384 steps, even in time from 0.9 to 0.1 (EDM: from 1), on
  three schedules: linear VP (in continuous time: a table has kinks), EDM's, flow matching's. The data are
  one-dimensional with two modes; denoiser and trajectories are exact. *Of a run* counts the first steps, which have no
  history and so a lower order: one first-order step alone is an error of second order. *With history*, six exact steps
  go before; what is left below the method's order comes from last steps of lower order, where the default has them.
- *Error at {COMPARED}*: the root mean square error of trajectories after {COMPARED} calls or the next fewer (in brackets), as in the
  diagrams. With few calls the order says little.
";

fn sources(page: &mut String, all: &[&Facts], references: &References) -> Result<()> {
    line!(page, "\n## Where they come from\n");
    line!(page, "| name | file | kind | paper | compared with | runs | off by at most |");
    line!(page, "|---|---|---|---|---|---|---|");
    for facts in all {
        let kind = format!("{:?}", facts.kind).to_lowercase();
        let file = format!("[{0}.rs](src/sampler/{0}.rs)", facts.file);
        let what = format!("`{}` | {file} | {kind} | [{}]({})", facts.name, facts.paper, facts.link);
        let cells: Vec<_> =
            facts.judges.iter().map(|&judge| references.cell(judge)).collect::<Result<_>>()?;
        let column = |of: &dyn Fn(&(String, String, String)) -> String| {
            if cells.is_empty() { "-".into() } else { cells.iter().map(of).collect::<Vec<_>>().join("<br>") }
        };
        let (with, runs, off) =
            (column(&|c| c.0.clone()), column(&|c| c.1.clone()), column(&|c| c.2.clone()));
        line!(page, "| {what} | {with} | {runs} | {off} |");
    }
    Ok(())
}

/// Numbers for each path, or a dash where the sampler refuses it.
fn three<T>(measured: &[Option<T>], show: impl Fn(&T) -> String) -> String {
    let cell = |one: &Option<T>| one.as_ref().map_or_else(|| "-".to_owned(), &show);
    measured.iter().map(cell).collect::<Vec<_>>().join(" / ")
}

/// The error with the most calls, two digits, and these calls.
fn error(points: &Points) -> String {
    let most = points.iter().copied().max_by_key(|point| point.0);
    most.map_or_else(|| "-".to_owned(), |(calls, error)| format!("{error:.1e} ({calls})"))
}

fn calls(facts: &Facts) -> Result<String> {
    let sampler = by_name::sampler::<1>(facts.name)?;
    if facts.kind == Kind::Adaptive {
        return Ok("adaptive".into());
    }
    let found = orders::paths().iter().find_map(|path| orders::calls(&sampler, path));
    Ok(found.map_or_else(
        || "-".to_owned(),
        |(each, more)| match more {
            0.0 => format!("{each}"),
            more => format!("{each} {} {}", if more > 0.0 { "+" } else { "-" }, more.abs()),
        },
    ))
}

const TRAJECTORIES: &str = "
## Deterministic samplers

![error over calls on the linear VP schedule](docs/samplers-vp.png)

![error over calls on the flow schedule](docs/samplers-flow.png)

Lower is better; order p is a line of slope -p. From time 0.98 to 0.02, by Karras' grid on VP and evenly on flow; `dopri5`
takes steps of its own, at tolerances from 1e-2 to 1e-8. `euler` and `ddim` are one method.

";

fn trajectories(page: &mut String, all: &[&Facts]) -> Result<()> {
    page.push_str(TRAJECTORIES);
    let orders = "order of a run, VP / EDM / flow | with history";
    line!(page, "| name | calls a step | {orders} | error at {COMPARED}, VP | error at {COMPARED}, flow |");
    line!(page, "|---|---|---|---|---|---|");
    for facts in all.iter().filter(|facts| matches!(facts.kind, Kind::Deterministic | Kind::Adaptive)) {
        let sampler = by_name::sampler::<1>(facts.name)?;
        let orders = match facts.kind {
            Kind::Adaptive => "- | -".to_owned(),
            _ => {
                let found = orders::paths().map(|path| orders::trajectory_orders(&sampler, &path));
                format!(
                    "{} | {}",
                    three(&found, |o| format!("{:.1}", o.0)),
                    three(&found, |o| format!("{:.1}", o.1))
                )
            }
        };
        let [vp, flow] =
            [Setting::Vp, Setting::Flow].map(|setting| setting.trajectories(facts.name, COMPARED));
        let (vp, flow) = (error(&vp?), error(&flow?));
        line!(page, "| `{}` | {} | {orders} | {vp} | {flow} |", facts.name, calls(facts)?);
    }
    Ok(())
}

const MOMENTS: &str = "
## Stochastic samplers

![distance of samples over calls](docs/samplers-stochastic.png)

*Order* is here that of the distribution (weak order): of the error of mean plus standard deviation for Gaussian data,
computed without sampling. 0 is a bias that stays. An error that changes its sign between the two runs has no slope: see
its size beside it. The diagram and *distance* (Wasserstein-1) are of 8192 samples of the two modes with quasi-random noise, on
linear VP, Karras' grid from pure noise to clean data. In the diagram `dpmpp-2m`, without noise, is there for comparison,
`ddpm` would lie on `euler-ancestral`, and distances beyond 10 are left out.

";

fn moments(page: &mut String, all: &[&Facts]) -> Result<()> {
    page.push_str(MOMENTS);
    let orders = "order, VP / EDM / flow | error of 384 steps";
    line!(page, "| name | calls a step | {orders} | distance at {COMPARED} |");
    line!(page, "|---|---|---|---|---|");
    for facts in all.iter().filter(|facts| facts.kind == Kind::Stochastic) {
        let sampler = by_name::sampler::<1>(facts.name)?;
        let found = orders::paths().map(|path| orders::weak_order(&sampler, &path));
        let (orders, errors) =
            (three(&found, |o| format!("{:.1}", o.0)), three(&found, |o| format!("{:.0e}", o.1)));
        let distance = error(&distributions(facts.name, COMPARED)?);
        line!(page, "| `{}` | {} | {orders} | {errors} | {distance} |", facts.name, calls(facts)?);
    }
    Ok(())
}

const MISSING: &str = "
Samplers of kind *distilled* have no order here: their networks map noise to data in one call, and the exact posterior
mean of these data does not.
";
