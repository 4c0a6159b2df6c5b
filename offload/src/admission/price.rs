//! The price of a rule in packets already carried, moved by demand.

/// How often the price is reconsidered, nanoseconds.
pub(crate) const PERIOD_NS: u64 = 100_000_000;
/// The highest price that demand alone can reach.
const PRICE_MAX: u32 = 1 << 24;

/// What happened in a period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Period {
    /// Requests that could not be met for want of budget or of room.
    pub turned_away: u32,
    /// Rules put in force.
    pub insertions: u32,
    /// Most rules the budget allows in a period.
    pub insertions_max: u32,
    /// Requests waiting at the end.
    pub waiting: u32,
    /// Whether it ends with the budget unused.
    pub idle: bool,
}

/// Rises while requests are turned away, falls while there is budget to spare, and stays in between: the
/// gap keeps it from swinging.
#[derive(Clone, Debug)]
pub struct Price {
    price: u32,
    price_min: u32,
    moves: bool,
}

impl Price {
    /// Begins at `first`; `moves`: whether it ever changes.
    #[must_use]
    pub fn new(first: u32, moves: bool) -> Price {
        Price { price: first, price_min: first, moves }
    }

    /// The price now.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.price
    }

    /// Whether it is above where it began: something is scarce.
    #[must_use]
    pub fn raised(&self) -> bool {
        self.price > self.price_min
    }

    /// Reconsiders it at the end of a period.
    pub fn reconsider(&mut self, period: &Period) {
        if !self.moves {
            return;
        }
        let waiting_long = period.waiting > period.insertions_max / 4 + 8;
        if period.turned_away > 0 || waiting_long {
            // In proportion to the surplus, and by half at most.
            let surplus = u64::from(period.turned_away) + u64::from(period.waiting / 2);
            let asked = surplus + u64::from(period.insertions / 2) + 1;
            let price = u64::from(self.price);
            let raised = price + (price * surplus / (2 * asked)).max(1);
            self.price = raised.min(u64::from(PRICE_MAX)) as u32;
        } else if period.idle || period.insertions < period.insertions_max / 2 {
            self.price = (self.price - (self.price / 12).max(1)).max(self.price_min);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(price: &mut Price, periods: u32, period: Period) -> u32 {
        for _ in 0..periods {
            price.reconsider(&period);
        }
        price.get()
    }

    #[test]
    fn it_rises_under_demand_and_comes_back() {
        let mut price = Price::new(8, true);
        let pressed = Period { turned_away: 100, insertions: 50, insertions_max: 50, ..Period::default() };
        assert!(steps(&mut price, 10, pressed) > 100 && price.raised());
        let slack = Period { insertions_max: 50, idle: true, ..Period::default() };
        assert_eq!(steps(&mut price, 200, slack), 8);
        assert!(!price.raised());
    }

    #[test]
    fn it_rests_while_the_budget_is_just_used() {
        let mut price = Price::new(8, true);
        let used = Period { insertions: 40, insertions_max: 50, waiting: 3, ..Period::default() };
        assert_eq!(steps(&mut price, 100, used), 8);
        price.reconsider(&Period { turned_away: 1000, insertions_max: 50, ..Period::default() });
        let raised = price.get();
        assert_eq!(steps(&mut price, 100, used), raised);
    }

    #[test]
    fn it_has_bounds() {
        let mut price = Price::new(1, true);
        let pressed = Period { turned_away: u32::MAX / 2, insertions: u32::MAX / 2, ..Period::default() };
        assert_eq!(steps(&mut price, 1000, pressed), PRICE_MAX);
        let mut fixed = Price::new(3, false);
        assert_eq!(steps(&mut fixed, 1000, pressed), 3);
    }
}
