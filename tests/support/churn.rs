//! Directories in which drivers come, go, move and die at random, and the comparison of what they are in the end with what
//! a gateway says that they are.
//!
//! Shared by a test and by the helper of `scripts/churn`; it speaks to the gateway over HTTP alone.

#![allow(dead_code, unreachable_pub, reason = "a test binary and a tool use their own parts of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use csi_gateway::commands::http;
use csi_gateway::demo::{FakeDriver, ServedDriver};
use serde_json::Value;

/// Longer than anything takes; it only turns a hang into a failure.
const LONG: Duration = Duration::from_secs(30);
const NAMES: [&str; 6] = ["a.example.com", "b.example.com", "c.example.com", "d.example.com", "e.example.com", "f"];

/// Device and inode.
type File = (u64, u64);

/// One server behind one file, which was made once.
struct Life {
    driver: ServedDriver,
    name: &'static str,
    file: File,
    begun: Instant,
    is_alive: bool,
    is_cut: bool,
    is_moved: bool,
}

impl Life {
    /// No more than one dial a second, and one more where a connection ended. A file that comes to a path between a look at
    /// what is there and the dial may have been dialled a moment before, or once more as what it is.
    fn check_dials(&self) {
        let seconds = usize::try_from(self.begun.elapsed().as_secs()).unwrap_or_default();
        let allowed = 1 + usize::from(self.is_cut) + usize::from(self.is_moved) + seconds;
        let dialled = self.driver.connections();
        assert!(dialled <= allowed, "{}: {dialled} dials, at most {allowed}", self.driver);
    }
}

/// The directories, and who lives there.
pub struct Churn {
    random: fastrand::Rng,
    root: PathBuf,
    slots: Vec<PathBuf>,
    registry: Vec<PathBuf>,
    lives: Vec<Life>,
    past: Vec<String>,
}

impl Churn {
    /// Nothing yet, below `root`.
    pub fn new(root: &Path, seed: u64) -> Self {
        let mut slots: Vec<PathBuf> = (0..6).map(|number| root.join(format!("d/{number}/csi.sock"))).collect();
        slots.extend((0..4).map(|number| root.join(format!("k/plugins/{number}/csi.sock"))));
        Self {
            random: fastrand::Rng::with_seed(seed),
            root: root.to_owned(),
            slots,
            registry: (0..2).map(|number| root.join(format!("k/plugins_registry/{number}-reg.sock"))).collect(),
            lives: Vec::new(),
            past: Vec::new(),
        }
    }

    /// What a gateway is told, so that it finds all of it.
    pub fn arguments(&self) -> [String; 2] {
        let at = |path: &str| self.root.join(path).display().to_string();
        [format!("--csi-plugins-dir={}", at("d")), format!("--kubelet-dir={}", at("k"))]
    }

    /// How many servers hold a connection now, as far as they can be found.
    pub fn connected(&self) -> usize {
        let files: BTreeSet<File> = self.slots.iter().chain(&self.registry).filter_map(|path| file_at(path)).collect();
        files.iter().filter(|file| self.owner(**file).is_some_and(|owner| owner.is_alive)).count()
    }

    /// One change.
    pub async fn step(&mut self) {
        let (slot, other) = (self.slot(), self.slot());
        let Some(parent) = slot.parent().map(Path::to_owned) else { return };
        let kind = self.random.u8(..16);
        self.past.push(format!("{kind} {} {}", slot.display(), other.display()));
        // Many fail: there is nothing at the other end, or something in the way.
        match kind {
            // Made, or replaced beside an old process that lives on.
            0..=3 => self.make(&slot).await,
            // Replaced without a moment in which there is no file.
            4 => {
                let next = parent.join("next");
                self.make(&next).await;
                self.rename(&next, &slot);
            }
            // Killed, and stopped.
            5 | 6 => {
                if let Some(life) = self.life() {
                    life.is_alive = false;
                    let end =
                        async { if kind == 5 { life.driver.leave_dead().await } else { life.driver.vanish().await } };
                    tokio::time::timeout(LONG, end).await.expect("a driver ends when it is told to");
                }
            }
            7 => drop(fs::remove_file(&slot)),
            8 => drop(fs::remove_dir_all(&parent)),
            9 | 10 => {
                let _ = fs::create_dir_all(&parent);
                let _ = if kind == 9 { fs::hard_link(&other, &slot) } else { symlink(&other, &slot) };
            }
            11 => self.rename(&other, &slot),
            12 => {
                let mode = 0o600 | self.random.u32(..0o100);
                let _ = fs::set_permissions(&slot, fs::Permissions::from_mode(mode));
            }
            13 => {
                if let Some(life) = self.life() {
                    life.is_cut = true;
                    life.driver.cut_connections();
                }
            }
            14 => {
                let path = self.random.choice(&self.registry).expect("not empty").clone();
                let name = self.name();
                let registrar = FakeDriver::registrar("CSIPlugin", name, slot.display().to_string());
                self.serve(registrar, name, &path).await;
                // Its directory is walked first, and those that were seen are asked then.
                self.lives.last_mut().expect("just served").is_moved = true;
            }
            _ => {
                let path = self.random.choice(&self.registry).expect("not empty");
                let _ = fs::remove_file(path);
            }
        }
        self.bury();
    }

    /// Waits until the gateway says what the directories are, and checks how often it dialled.
    ///
    /// # Panics
    /// If it does not in time, or if a driver was dialled too often.
    pub async fn settle(&mut self, gateway: &str) {
        let begun = Instant::now();
        while let Some(difference) = self.difference(gateway).await {
            assert!(begun.elapsed() < LONG, "{difference}\nafter\n{}", self.past.join("\n"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.lives.iter().for_each(Life::check_dials);
        self.past.clear();
    }

    fn slot(&mut self) -> PathBuf {
        self.random.choice(&self.slots).expect("not empty").clone()
    }

    fn name(&mut self) -> &'static str {
        self.random.choice(NAMES).expect("not empty")
    }

    /// Anybody who lives.
    fn life(&mut self) -> Option<&mut Life> {
        let alive: Vec<usize> = (0..self.lives.len()).filter(|number| self.lives[*number].is_alive).collect();
        self.random.choice(alive).map(|number| &mut self.lives[number])
    }

    /// Who made this file, the newest: kernels use inodes again.
    fn owner(&self, file: File) -> Option<&Life> {
        self.lives.iter().rev().find(|life| life.file == file)
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let file = file_at(from);
        if let Some(life) = self.lives.iter_mut().rev().find(|life| Some(life.file) == file) {
            life.is_moved = true;
        }
        let _ = fs::rename(from, to);
    }

    async fn make(&mut self, path: &Path) {
        let name = self.name();
        self.serve(FakeDriver::node(name), name, path).await;
    }

    async fn serve(&mut self, driver: FakeDriver, name: &'static str, path: &Path) {
        let driver = driver.serve(path).await.expect("binds");
        let file = file_at(path).expect("just made");
        self.lives.push(Life {
            driver,
            name,
            file,
            begun: Instant::now(),
            is_alive: true,
            is_cut: false,
            is_moved: false,
        });
    }

    /// Of the dead, and of those that live on without a file, the oldest are let go, so that memory does not tell how
    /// long this has been going on.
    fn bury(&mut self) {
        const MOST: usize = 64;
        while self.lives.len() > MOST {
            let shown: BTreeSet<File> =
                self.slots.iter().chain(&self.registry).filter_map(|path| file_at(path)).collect();
            let Some(number) = self.lives.iter().position(|life| !shown.contains(&life.file)) else { return };
            self.lives.remove(number).check_dials();
        }
    }

    /// The first difference between the directories and what the gateway says of them.
    async fn difference(&self, gateway: &str) -> Option<String> {
        let view = get(gateway, "/v1/gateway/sockets").await;
        let sockets: BTreeMap<&str, &Value> =
            list(&view["Sockets"]).iter().filter_map(|socket| Some((socket["Path"].as_str()?, socket))).collect();
        let of = |path: &Path| sockets.get(&*path.to_string_lossy()).copied();
        let mut by_file = BTreeMap::<File, Vec<&Path>>::new();
        for slot in &self.slots {
            if let Some(file) = file_at(slot) {
                by_file.entry(file).or_default().push(slot);
                continue;
            }
            let is_right = of(slot).is_none_or(|socket| {
                let is_ill = socket["Phase"] == "unhealthy";
                // A link to itself may be where once a driver was.
                socket["Phase"] == "gone" || socket["Ignored"] == true || (slot.is_symlink() && is_ill)
            });
            if !is_right {
                return Some(format!("{} is not there, and is {:#}", slot.display(), of(slot)?));
            }
        }
        let mut expected = BTreeSet::new();
        for (file, paths) in &by_file {
            let (aside, watched): (Vec<&Value>, Vec<&Value>) =
                paths.iter().filter_map(|path| of(path)).partition(|socket| socket["Ignored"] == true);
            let [watched] = watched[..] else { return Some(format!("of {paths:?} not one is watched: {watched:#?}")) };
            if aside.len() + 1 != paths.len() {
                return Some(format!("of {paths:?} not all are listed: {watched:#} {aside:#?}"));
            }
            match self.owner(*file).filter(|owner| owner.is_alive) {
                Some(owner) if watched["Phase"] == "healthy" && watched["Provider"] == owner.name => {
                    expected.insert(owner.name);
                }
                None if watched["Phase"] == "stale" => {}
                owner => return Some(format!("{:?} is {watched:#}", owner.map(|owner| owner.name))),
            }
        }
        let mut healthy = BTreeSet::new();
        for plugin in list(&get(gateway, "/v1/gateway/plugins").await) {
            let (Some(id), Some(count)) = (plugin["ID"].as_str(), plugin["NodesHealthy"].as_u64()) else {
                return Some(format!("a plugin without id or count: {plugin:#}"));
            };
            if count == 0 {
                continue;
            }
            healthy.insert(id.to_owned());
            let detail = get(gateway, &format!("/v1/gateway/plugin/{id}")).await;
            let nodes = detail["Nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
            for node in nodes {
                let owner = node["Socket"].as_str().and_then(|path| self.owner(file_at(Path::new(path))?));
                if owner.is_none_or(|owner| !owner.is_alive || owner.name != id) {
                    return Some(format!("{id} counts at the socket of {:?}: {node:#}", owner.map(|owner| owner.name)));
                }
            }
        }
        let is_same = healthy.iter().map(String::as_str).eq(expected.iter().copied());
        (!is_same).then(|| format!("{healthy:?} are healthy, and {expected:?} listen"))
    }
}

fn file_at(path: &Path) -> Option<File> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

async fn get(gateway: &str, path: &str) -> Value {
    let answer = http::get(gateway, path).await.expect("the gateway answers");
    serde_json::from_slice(&answer.body).unwrap_or_default()
}
