//! From files to a policy set: read, parse, validate, with every problem told at once.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use cedar_policy::{
    Effect, Policy, PolicyId, PolicySet as Policies, Schema, ValidationMode, Validator,
    ffi::DetailedError,
};
use thiserror::Error;

use super::{
    SCHEMA,
    annotation::{self, Facts, Kind},
};

/// A policy file, or the tests file, may have this many bytes; a larger one is a load error.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// A directory may hold this many policy files; more are a load error.
const FILES_MAX: usize = 1024;
/// The name of the operator's tests, beside the access policies.
pub(super) const TESTS_FILE: &str = "tests.yaml";

/// Where policies come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySource {
    /// The directory of `*.cedar` files that decide; its `tests.yaml`, if any, must pass.
    pub access: PathBuf,
    /// The directory of `*.cedar` files that say what is retained; without it, everything is.
    pub recording: Option<PathBuf>,
}

impl PolicySource {
    /// A directory with `access/` (and perhaps `recording/`) in it, or one that holds access policies itself.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        let (access, recording) = (directory.join("access"), directory.join("recording"));
        if access.is_dir() {
            Self { access, recording: recording.is_dir().then_some(recording) }
        } else {
            Self { access: directory.to_owned(), recording: None }
        }
    }
}

/// Something wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, for example `access/agents.cedar`.
    pub file: String,
    /// Line and column, from 1, where known.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Why a policy set was not taken.
#[derive(Debug, Error)]
pub enum LoadPolicyError {
    /// A directory or file cannot be read.
    #[error("read policies from {}", path.display())]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is too large, or there are too many.
    #[error("{}: {limit}", path.display())]
    TooMuch {
        /// The directory or file.
        path: PathBuf,
        /// The bound that was reached.
        limit: &'static str,
    },
    /// Policies or tests that are not valid.
    #[error("invalid policies:\n{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// The operator's own tests do not pass.
    #[error("policy tests failed:\n{}", .0.join("\n"))]
    Tests(Vec<String>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// The text of a set, as read in one go.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Name (`access/x.cedar`) to content.
    pub(super) policies: BTreeMap<String, String>,
    /// The operator's tests.
    pub(super) tests: Option<String>,
}

impl Files {
    pub(super) fn read(source: &PolicySource) -> Result<Self, LoadPolicyError> {
        let mut files = Self::default();
        files.read_directory(&source.access, Kind::Access)?;
        if let Some(recording) = &source.recording {
            files.read_directory(recording, Kind::Recording)?;
        }
        let tests = source.access.join(TESTS_FILE);
        if tests.exists() {
            files.tests = Some(read_file(&tests)?);
        }
        Ok(files)
    }

    /// BLAKE3 over names and contents in order, each with its length in front; 16 hexadecimal digits.
    pub(super) fn hash(&self) -> String {
        hash(self.policies.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]))
    }

    /// Like [`Self::hash`], also over the tests: changes whenever a load could come out differently.
    pub(super) fn fingerprint(&self) -> String {
        let tests = self.tests.as_deref().unwrap_or("\0");
        hash([self.hash().as_str(), tests].into_iter())
    }

    fn read_directory(&mut self, directory: &Path, kind: Kind) -> Result<(), LoadPolicyError> {
        let read = |source| LoadPolicyError::Read { path: directory.to_owned(), source };
        let before = self.policies.len();
        for entry in fs::read_dir(directory).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // Editors and Kubernetes' volume mounts keep files that begin with a dot.
            if name.starts_with('.') || !name.ends_with(".cedar") {
                continue;
            }
            if self.policies.len() - before == FILES_MAX {
                let limit = "more than 1024 policy files";
                return Err(LoadPolicyError::TooMuch { path: directory.to_owned(), limit });
            }
            self.policies.insert(format!("{}/{name}", kind.directory()), read_file(&path)?);
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<String, LoadPolicyError> {
    let read = |source| LoadPolicyError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
        let limit = "larger than 1 MiB";
        return Err(LoadPolicyError::TooMuch { path: path.to_owned(), limit });
    }
    fs::read_to_string(path).map_err(read)
}

fn hash<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex()[..HASH_DIGITS].to_owned()
}

const HASH_DIGITS: usize = 16;

/// Policies of one kind, ready to be asked, with what their annotations say.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    /// All of them; in a recording set only the permits, since only those count.
    pub(super) all: Policies,
    /// The permits alone.
    pub(super) permits: Policies,
    /// By policy id.
    pub(super) facts: HashMap<String, Facts>,
}

/// Both kinds, and what an author should look at though it is not wrong.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) access: Compiled,
    pub(super) recording: Compiled,
    /// Whether a policy looks at the clock.
    pub(super) tells_time: bool,
    pub(super) warnings: Vec<String>,
}

/// Parses and validates all files, and tells all problems.
pub(super) fn parse(files: &Files) -> Result<Parsed, LoadPolicyError> {
    let schema: Schema = SCHEMA.parse().expect("the schema is valid: a test parses it");
    let validator = Validator::new(schema);
    let (mut parsed, mut problems) = (Parsed::default(), Vec::new());
    for kind in [Kind::Access, Kind::Recording] {
        let prefix = format!("{}/", kind.directory());
        for (path, text) in files.policies.iter().filter(|(path, _)| path.starts_with(&prefix)) {
            let mut file = File { path, text, kind, problems: &mut problems };
            let policies = file.policies(&validator);
            parsed.take(kind, policies);
        }
    }
    if parsed.access.permits.is_empty() {
        parsed.warnings.push("no access policy permits anything: every request is denied".into());
    }
    if problems.is_empty() { Ok(parsed) } else { Err(LoadPolicyError::Invalid(problems)) }
}

impl Parsed {
    fn take(&mut self, kind: Kind, policies: Vec<(Policy, Facts)>) {
        let compiled = match kind {
            Kind::Access => &mut self.access,
            Kind::Recording => &mut self.recording,
        };
        for (policy, facts) in policies {
            let unique = "ids hold the file's name and are unique in it";
            if policy.effect() == Effect::Permit {
                compiled.permits.add(policy.clone()).expect(unique);
            } else if kind == Kind::Recording {
                let id = policy.id();
                self.warnings.push(format!("recording/{id}: a forbid does not count here"));
                continue;
            }
            self.tells_time |= tells_time(&policy);
            compiled.facts.insert(policy.id().to_string(), facts);
            compiled.all.add(policy).expect(unique);
        }
    }
}

/// Whether a policy looks at `context.now`. Its syntax tree says so, where no comment counts; in doubt it does.
fn tells_time(policy: &Policy) -> bool {
    policy.to_json().map_or(true, |tree| tree.to_string().contains("\"now\""))
}

/// One file on its way in.
struct File<'a> {
    path: &'a str,
    text: &'a str,
    kind: Kind,
    problems: &'a mut Vec<Problem>,
}

impl File<'_> {
    /// The file's policies in order, with their ids: `file.cedar/ID` from `@id("ID")`, else
    /// `file.cedar/policyN`, N from 0. Empty when anything is wrong.
    fn policies(&mut self, validator: &Validator) -> Vec<(Policy, Facts)> {
        let parsed: Policies = match self.text.parse() {
            Ok(parsed) => parsed,
            Err(errors) => {
                self.problem(&DetailedError::from(&errors));
                return Vec::new();
            }
        };
        if parsed.num_of_templates() > 0 {
            self.push(None, "templates have no use here: replace ?principal and ?resource".into());
        }
        let (name, mut named, mut set) = (self.name(), Vec::new(), Policies::new());
        for policy in parsed.policies() {
            let id = policy.annotation("id").unwrap_or(policy.id().as_ref());
            let policy = policy.new_id(PolicyId::new(format!("{name}/{id}")));
            match annotation::read(&policy, self.kind) {
                Ok(facts) => named.push((policy.clone(), facts)),
                Err(problems) => {
                    for problem in problems {
                        self.push(None, format!("policy {id}: {problem}"));
                    }
                }
            }
            if !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
                self.push(None, format!("the id {id:?} must be of A-Z a-z 0-9 . _ -"));
            }
            if set.add(policy.clone()).is_err() {
                self.push(None, format!("the id {id:?} occurs twice"));
            }
        }
        let result = validator.validate(&set, ValidationMode::Strict);
        for error in result.validation_errors() {
            self.problem(&DetailedError::from(error));
        }
        if self.problems.is_empty() { named } else { Vec::new() }
    }

    fn name(&self) -> String {
        self.path.rsplit('/').next().unwrap_or(self.path).to_owned()
    }

    fn problem(&mut self, error: &DetailedError) {
        let at = error.source_locations.first().map(|label| position(self.text, label.loc.start));
        let help = error.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        self.push(at, format!("{}{help}", error.message));
        for related in &error.related {
            self.problem(related);
        }
    }

    fn push(&mut self, at: Option<(usize, usize)>, message: String) {
        self.problems.push(Problem { file: self.path.to_owned(), at, message });
    }
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
