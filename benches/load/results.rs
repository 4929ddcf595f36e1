//! All windows of a run: measured round by round, and looked at by medians.

use crate::{
    Options,
    measure::{Measurement, Target, Window, measure},
};

/// Which windows: a system's, under so many connections.
pub type Key<'a> = (&'a str, u32);

/// One number of a measurement.
pub type Metric = fn(&Measurement) -> Option<f64>;

#[derive(Default)]
pub struct Results(Vec<Measurement>);

impl Results {
    /// Measures all systems, interleaved, so that what else the machine does meets all alike; and every
    /// second round from the last to the first, as whoever comes second was found to have it easier.
    pub async fn measure(targets: &[Target], connections: &[u32], options: &Options) -> Self {
        let mut results = Self::default();
        for round in 1..=options.rounds {
            let mut order: Vec<&Target> = targets.iter().collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for &connections in connections {
                for target in &order {
                    let window = Window {
                        number: 1 + results.0.len() as u32,
                        round,
                        connections,
                        warm_up: options.warm_up(),
                        seconds: options.seconds,
                        pause: options.pause,
                    };
                    let measurement = measure(target, window).await;
                    eprintln!("round {round} of {}: {measurement}", options.rounds);
                    results.0.push(measurement);
                }
            }
        }
        results
    }

    /// Adds those of other systems.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    fn of<'a>(&'a self, (name, connections): Key<'a>) -> impl Iterator<Item = &'a Measurement> {
        let is_of = move |measurement: &&Measurement| {
            measurement.name == name && measurement.connections == connections
        };
        self.0.iter().filter(is_of)
    }

    /// The median of a number over the rounds.
    pub fn median(&self, key: Key<'_>, metric: Metric) -> Option<f64> {
        median(self.of(key).filter_map(metric).collect())
    }

    /// The median of the rounds' ratios.
    pub fn ratio(&self, metric: Metric, over: Key<'_>, under: Key<'_>) -> Option<f64> {
        let in_round = |over: &Measurement| {
            let under = self.of(under).find(|under| under.round == over.round)?;
            Some(metric(over)? / metric(under)?)
        };
        median(self.of(over).filter_map(in_round).collect())
    }

    /// How many requests failed, and how the first of them did.
    pub fn errors<'a>(&'a self, key: Key<'a>) -> (u64, Option<&'a str>) {
        let count = self.of(key).map(|measurement| measurement.report.errors).sum();
        (count, self.of(key).find_map(|measurement| measurement.report.error.as_deref()))
    }

    /// Whether every request of the run was answered as it should be.
    pub fn is_sound(&self) -> bool {
        self.0.iter().all(|measurement| measurement.report.errors == 0)
    }

    /// Systems and connections, in the order in which they were measured first.
    pub fn keys(&self) -> Vec<Key<'_>> {
        let mut keys = Vec::new();
        for measurement in &self.0 {
            let key = (measurement.name.as_str(), measurement.connections);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// The least, the median and the largest of a number over all windows.
    pub fn range(&self, of: impl Fn(&Measurement) -> f64) -> (f64, f64, f64) {
        let mut numbers: Vec<f64> = self.0.iter().map(of).collect();
        numbers.sort_by(f64::total_cmp);
        let (least, largest) = (numbers[0], numbers[numbers.len() - 1]);
        (least, median(numbers).unwrap_or_default(), largest)
    }
}

/// The middle of some numbers, or between the two in the middle.
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.get(numbers.len() / 2)?;
    let before =
        if numbers.len().is_multiple_of(2) { numbers[numbers.len() / 2 - 1] } else { *middle };
    Some(f64::midpoint(before, *middle))
}
