//! HTTP requests by route, method and code. Routes, methods and codes are those of tables: nothing that a client sends
//! makes a series of its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::histogram::{Bounds, Histogram};

/// From a list that is kept ready to one of a fleet.
pub const BOUNDS: Bounds = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];

/// Methods that are told apart.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "other"];
/// Codes that are.
const CODES: [u16; 12] = [200, 204, 307, 400, 403, 404, 405, 409, 413, 429, 500, 501];
/// All others.
const OTHER_CODE: &str = "other";

/// By route, method and code. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<OnceLock<Box<[Place]>>>);

/// Made when it is first needed: of all combinations few occur.
type Place = OnceLock<Box<Histogram>>;

impl Requests {
    const EACH: usize = METHODS.len() * (CODES.len() + 1);

    /// A request was answered. `route` is the number of one of `routes`.
    pub fn answered(&self, routes: usize, route: usize, method: &str, code: u16, took: Duration) {
        let table = self.0.get_or_init(|| (0..routes * Self::EACH).map(|_| OnceLock::new()).collect());
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let code = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len());
        if let Some(place) = table.get(route * Self::EACH + method * (CODES.len() + 1) + code) {
            place.get_or_init(|| Box::new(Histogram::new(BOUNDS))).observe(took);
        }
    }

    /// Every combination that occurred: number of the route, method, code.
    pub fn each(&self, mut take: impl FnMut(usize, &'static str, &str, &Histogram)) {
        for (place, histogram) in self.0.get().into_iter().flatten().enumerate() {
            let Some(histogram) = histogram.get() else { continue };
            let (route, rest) = (place / Self::EACH, place % Self::EACH);
            let (method, code) = (rest / (CODES.len() + 1), rest % (CODES.len() + 1));
            let code = CODES.get(code).map_or_else(|| OTHER_CODE.to_owned(), u16::to_string);
            take(route, METHODS[method], &code, histogram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_table_is_counted_as_other() {
        let requests = Requests::default();
        for (method, code) in [("GET", 200), ("GET", 200), ("BREW", 418)] {
            requests.answered(3, 2, method, code, Duration::ZERO);
        }
        requests.answered(3, 0, "DELETE", 409, Duration::ZERO);
        let mut seen = Vec::new();
        requests.each(|route, method, code, times| seen.push((route, method, code.to_owned(), times.count())));
        let expected = [(0, "DELETE", "409", 1), (2, "GET", "200", 2), (2, "other", "other", 1)];
        assert_eq!(seen, expected.map(|(route, method, code, count)| (route, method, code.to_owned(), count)));
    }
}
