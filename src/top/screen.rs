//! The view on a terminal, renewed until somebody has seen enough.

use super::{Sample, View};
use crate::Failure;
use crate::client::Client;
use crate::clock;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often signals are looked for.
const PATIENCE: Duration = Duration::from_millis(100);
/// Between columns.
const GAP: u16 = 2;

fn failed(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::System { what, source }
}

/// Shows views until `q`, Escape, Ctrl-C or a signal, and leaves the terminal as it was.
pub(super) fn show(client: &Client<'_>, first: (Instant, Sample), interval: Duration) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(failed("signals"))?;
    }
    let mut terminal = ratatui::try_init().map_err(failed("the terminal"))?;
    let mut live = Live::new(first, interval);
    let result = live.run(client, &stop, &mut terminal);
    let restored = ratatui::try_restore();
    result.and(restored).map_err(failed("the terminal"))
}

/// What is shown, and when it is renewed.
struct Live {
    interval: Duration,
    last: (Instant, Sample),
    due: Instant,
    view: View,
    /// Why there is nothing newer.
    problem: Option<String>,
}

impl Live {
    fn new(first: (Instant, Sample), interval: Duration) -> Live {
        let view = View::new(&first.1, &first.1, Duration::ZERO);
        Live { interval, due: first.0 + interval, last: first, view, problem: None }
    }

    fn run(
        &mut self,
        client: &Client<'_>,
        stop: &AtomicBool,
        terminal: &mut ratatui::DefaultTerminal,
    ) -> io::Result<()> {
        while !stop.load(Relaxed) {
            terminal.draw(|frame| draw(frame, &self.view, self.problem.as_deref()))?;
            if self.wait(stop)? {
                return Ok(());
            }
            if clock::monotonic() >= self.due {
                self.renew(client);
            }
        }
        Ok(())
    }

    /// Until the next view is due or the terminal has changed; `true` if somebody wants to quit.
    fn wait(&self, stop: &AtomicBool) -> io::Result<bool> {
        loop {
            let left = self.due.saturating_duration_since(clock::monotonic());
            if stop.load(Relaxed) || left.is_zero() {
                return Ok(false);
            }
            if !event::poll(left.min(PATIENCE))? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if quits(key) => return Ok(true),
                Event::Resize(..) => return Ok(false),
                _ => {}
            }
        }
    }

    fn renew(&mut self, client: &Client<'_>) {
        match Sample::take(client) {
            Ok((at, sample)) => {
                self.view = View::new(&self.last.1, &sample, at.saturating_duration_since(self.last.0));
                self.last = (at, sample);
                self.problem = None;
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
        self.due = clock::monotonic() + self.interval;
    }
}

fn quits(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => true,
            KeyCode::Char('c') => control,
            _ => false,
        }
}

/// The head, the tables below each other as far as there is room, and how to leave.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, problem: Option<&str>) {
    let tables = view.tables();
    let heights = tables.each_ref().map(|(table, _)| 2 + table.cells().len().max(1) as u16);
    let lines: Vec<Line<'_>> = view.head().into_iter().map(Line::from).collect();
    // The long ones (backends, and then services) give way first.
    let [workers, services, backends, drops] = heights;
    let [head, workers, services, backends, drops, foot] = Layout::vertical([
        Constraint::Length(lines.len() as u16 + 1),
        Constraint::Max(workers),
        Constraint::Max(services),
        Constraint::Max(backends),
        Constraint::Max(drops),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(lines).bold(), head);
    for ((table, nothing), area) in tables.iter().zip([workers, services, backends, drops]) {
        draw_table(frame, table, nothing, area);
    }
    let problem = problem.and_then(|text| text.lines().next());
    let foot_text = match problem {
        Some(problem) => Line::from(problem.to_owned()).red(),
        None => Line::from("q quits").dim(),
    };
    frame.render_widget(foot_text, foot);
}

fn draw_table(frame: &mut Frame<'_>, table: &crate::output::Table, nothing: &str, area: Rect) {
    if table.cells().is_empty() {
        return frame.render_widget(Line::from(nothing.to_owned()).dim(), area);
    }
    let (titles, widths) = (table.titles(), table.widths());
    let place = |column: usize| if table.is_right(column) { Alignment::Right } else { Alignment::Left };
    let row = |cells: &[String]| {
        let cells = cells.iter().enumerate();
        Row::new(cells.map(|(column, cell)| Line::from(cell.clone()).alignment(place(column))))
    };
    let widget = Table::new(
        table.cells().iter().map(|cells| row(cells)),
        widths.iter().map(|width| Constraint::Length(*width as u16)),
    )
    .header(row(&titles).style(Style::new().reversed()))
    .column_spacing(GAP);
    frame.render_widget(widget, area);
}
