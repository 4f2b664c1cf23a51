//! One client with two surfaces: a method name and a JSON object in, a JSON object or a problem out. Over gRPC the JSON becomes a
//! typed message and a real call; over HTTP it becomes path, query and body of the generated route, and the answer has to fit the OpenAPI document.

use crate::schema::check_answer;
use afs_proto::rest::{ROUTES, RouteInfo};
use afs_proto::v1::{self, write_file_request::Part};
use afs_proto::{Problem, from_status};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use tonic::Status;
use tonic::transport::Channel;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Surface {
    Grpc,
    Http,
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) surface: Surface,
    pub(crate) channel: Channel,
    http: HttpClient<HttpConnector, Full<Bytes>>,
    endpoint: String,
}

pub(crate) type Outcome<T> = Result<T, Box<Problem>>;

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

fn problem(status: &Status) -> Box<Problem> {
    assert!(!matches!(status.code(), tonic::Code::Unknown), "every error of ours has a code: {status:?}");
    Box::new(Problem::from(&from_status(status)))
}

/// A request as the generated routes would make it.
fn typed<T: DeserializeOwned>(method: &str, body: Value) -> T {
    let Value::Object(mut fields) = body else { panic!("a request is an object") };
    route_of(method).shape.check(&mut fields).unwrap();
    decode(Value::Object(fields))
}

fn decode<T: DeserializeOwned>(body: Value) -> T {
    serde_json::from_value(body.clone()).unwrap_or_else(|e| panic!("{e}: {body}"))
}

macro_rules! unary {
    ($channel:expr, $method:expr, $body:expr; $($client:path { $($name:literal $call:ident $request:ident;)* })*) => {
        match $method {
            $($($name => {
                let request: v1::$request = typed($method, $body);
                let answer = <$client>::new($channel).$call(request).await.map_err(|s| problem(&s))?;
                Ok(serde_json::to_value(answer.into_inner()).unwrap())
            })*)*
            other => panic!("no method {other}"),
        }
    };
}

macro_rules! streaming {
    ($channel:expr, $method:expr, $body:expr; $($client:path { $($name:literal $call:ident $request:ident;)* })*) => {
        match $method {
            $($($name => {
                let request: v1::$request = typed($method, $body);
                let answer = <$client>::new($channel).$call(request).await.map_err(|s| problem(&s))?;
                let (mut all, mut stream) = (Vec::new(), answer.into_inner());
                while let Some(item) = stream.next().await {
                    all.push(serde_json::to_value(item.map_err(|s| problem(&s))?).unwrap());
                }
                Ok(all)
            })*)*
            other => panic!("no stream {other}"),
        }
    };
}

impl Client {
    pub(crate) async fn connect(surface: Surface, endpoint: String) -> Self {
        let channel = Channel::from_shared(endpoint.clone()).unwrap().connect().await.unwrap();
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self { surface, channel, http, endpoint }
    }

    /// Calls `Service.Method` (without the suffix Service).
    pub(crate) async fn call(&self, method: &str, body: Value) -> Outcome<Value> {
        match self.surface {
            Surface::Grpc => self.grpc(method, body).await,
            Surface::Http => {
                let answer = self.route(method, body, "application/json").await;
                let route = route_of(method);
                check_answer(route.verb, route.path, &answer);
                let value = serde_json::from_slice(&answer.body).unwrap();
                if answer.status == 200 { Ok(value) } else { Err(decode(value)) }
            }
        }
    }

    /// A call that works.
    pub(crate) async fn ok(&self, method: &str, body: Value) -> Value {
        let shown = body.to_string();
        self.call(method, body).await.unwrap_or_else(|p| panic!("{:?} {method} {shown}: {p:?}", self.surface))
    }

    /// A call that is refused; its reason.
    pub(crate) async fn refused(&self, method: &str, body: Value) -> Problem {
        let shown = body.to_string();
        match self.call(method, body).await {
            Ok(answer) => panic!("{:?} {method} {shown} gave {answer}", self.surface),
            Err(problem) => *problem,
        }
    }

    /// All messages of a server stream.
    pub(crate) async fn all(&self, method: &str, body: Value) -> Outcome<Vec<Value>> {
        if self.surface == Surface::Grpc {
            return self.grpc_stream(method, body).await;
        }
        let answer = self.route(method, body, "application/x-ndjson").await;
        let route = route_of(method);
        check_answer(route.verb, route.path, &answer);
        let text = std::str::from_utf8(&answer.body).unwrap();
        if answer.status != 200 {
            return Err(decode(serde_json::from_str(text).unwrap()));
        }
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line.get("error").map_or(Ok(line.clone()), |e| Err(decode(e.clone())))).collect()
    }

    async fn route(&self, method: &str, body: Value, accept: &str) -> Answer {
        let route = route_of(method);
        let (uri, body) = request_of(route, body);
        self.send(route.verb, &uri, &[("accept", accept)], body).await
    }

    /// Any HTTP request.
    pub(crate) async fn send(
        &self,
        verb: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = http::Request::builder().method(verb).uri(format!("{}{uri}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.http.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Writes a file: a client stream over gRPC, PUT over HTTP.
    pub(crate) async fn write(&self, session: &str, path: &str, bytes: &[u8]) -> Outcome<Value> {
        if self.surface == Surface::Http {
            let uri = format!("/v1/sessions/{session}/files{path}");
            let answer = self.send("PUT", &uri, &[], bytes.to_vec()).await;
            let value: Value = serde_json::from_slice(&answer.body).unwrap();
            return if answer.status == 200 { Ok(value) } else { Err(decode(value)) };
        }
        let header = json!({"session_id": session, "path": path, "create_parents": true});
        self.write_with(header, bytes).await
    }

    pub(crate) async fn write_with(&self, header: Value, bytes: &[u8]) -> Outcome<Value> {
        let pieces = bytes.chunks(100_000).map(|c| Part::Data(c.to_vec().into()));
        let parts = std::iter::once(Part::Header(decode(header))).chain(pieces);
        self.write_parts(parts.chain([Part::End(v1::WriteFileEnd {})]).collect()).await
    }

    /// Any messages of an upload over gRPC; then the stream ends.
    pub(crate) async fn write_parts(&self, parts: Vec<Part>) -> Outcome<Value> {
        let parts = stream::iter(parts).map(|part| v1::WriteFileRequest { part: Some(part) });
        let mut files = v1::file_system_service_client::FileSystemServiceClient::new(self.channel.clone());
        let answer = files.write_file(parts).await.map_err(|s| problem(&s))?;
        Ok(serde_json::to_value(answer.into_inner()).unwrap())
    }

    /// Reads a file: a server stream over gRPC, GET over HTTP.
    pub(crate) async fn read(&self, session: &str, path: &str) -> Outcome<Vec<u8>> {
        if self.surface == Surface::Http {
            let answer = self.send("GET", &format!("/v1/sessions/{session}/files{path}"), &[], "").await;
            let problem = || decode(serde_json::from_slice(&answer.body).unwrap());
            return if answer.status == 200 { Ok(answer.body.to_vec()) } else { Err(problem()) };
        }
        let request =
            v1::ReadFileRequest { session_id: session.into(), path: path.into(), ..Default::default() };
        let mut files = v1::file_system_service_client::FileSystemServiceClient::new(self.channel.clone());
        let mut parts = files.read_file(request).await.map_err(|s| problem(&s))?.into_inner();
        let mut all = Vec::new();
        while let Some(part) = parts.next().await {
            if let Some(v1::read_file_response::Part::Data(data)) = part.map_err(|s| problem(&s))?.part {
                all.extend_from_slice(&data);
            }
        }
        Ok(all)
    }

    pub(crate) async fn grpc(&self, method: &str, body: Value) -> Outcome<Value> {
        use v1::admin_service_client::AdminServiceClient as Admin;
        use v1::file_system_service_client::FileSystemServiceClient as Files;
        use v1::persistence_service_client::PersistenceServiceClient as Persistence;
        use v1::session_service_client::SessionServiceClient as Session;
        use v1::source_service_client::SourceServiceClient as Source;
        let channel = self.channel.clone();
        unary!(channel, method, body;
            Admin::<Channel> {
                "Admin.GetServerInfo" get_server_info GetServerInfoRequest;
                "Admin.CheckReadiness" check_readiness CheckReadinessRequest;
            }
            Source::<Channel> {
                "Source.CreateSource" create_source CreateSourceRequest;
                "Source.GetSource" get_source GetSourceRequest;
                "Source.ListSources" list_sources ListSourcesRequest;
                "Source.RefreshSource" refresh_source RefreshSourceRequest;
                "Source.ListSourceVersions" list_source_versions ListSourceVersionsRequest;
                "Source.DeleteSource" delete_source DeleteSourceRequest;
            }
            Session::<Channel> {
                "Session.CreateSession" create_session CreateSessionRequest;
                "Session.GetSession" get_session GetSessionRequest;
                "Session.ListSessions" list_sessions ListSessionsRequest;
                "Session.UpdateSession" update_session UpdateSessionRequest;
                "Session.ForkSession" fork_session ForkSessionRequest;
                "Session.ArchiveSession" archive_session ArchiveSessionRequest;
                "Session.ResumeSession" resume_session ResumeSessionRequest;
                "Session.DeleteSession" delete_session DeleteSessionRequest;
                "Session.WaitDurable" wait_durable WaitDurableRequest;
            }
            Files::<Channel> {
                "FileSystem.Stat" stat StatRequest;
                "FileSystem.ListDirectory" list_directory ListDirectoryRequest;
                "FileSystem.ReadLines" read_lines ReadLinesRequest;
                "FileSystem.BatchReadFiles" batch_read_files BatchReadFilesRequest;
                "FileSystem.EditFile" edit_file EditFileRequest;
                "FileSystem.ApplyPatch" apply_patch ApplyPatchRequest;
                "FileSystem.SubmitChanges" submit_changes SubmitChangesRequest;
                "FileSystem.CreateDirectory" create_directory CreateDirectoryRequest;
                "FileSystem.CreateSymlink" create_symlink CreateSymlinkRequest;
                "FileSystem.CreateHardLink" create_hard_link CreateHardLinkRequest;
                "FileSystem.MovePath" move_path MovePathRequest;
                "FileSystem.CopyPath" copy_path CopyPathRequest;
                "FileSystem.RemovePath" remove_path RemovePathRequest;
                "FileSystem.SetAttributes" set_attributes SetAttributesRequest;
                "FileSystem.Glob" glob GlobRequest;
            }
            Persistence::<Channel> {
                "Persistence.CreateCheckpoint" create_checkpoint CreateCheckpointRequest;
                "Persistence.GetCheckpoint" get_checkpoint GetCheckpointRequest;
                "Persistence.ListCheckpoints" list_checkpoints ListCheckpointsRequest;
                "Persistence.DeleteCheckpoint" delete_checkpoint DeleteCheckpointRequest;
                "Persistence.RestoreCheckpoint" restore_checkpoint RestoreCheckpointRequest;
                "Persistence.CreateCommit" create_commit CreateCommitRequest;
                "Persistence.GetCommit" get_commit GetCommitRequest;
                "Persistence.ListCommits" list_commits ListCommitsRequest;
                "Persistence.Promote" promote PromoteRequest;
            }
        )
    }

    async fn grpc_stream(&self, method: &str, body: Value) -> Outcome<Vec<Value>> {
        use v1::file_system_service_client::FileSystemServiceClient as Files;
        use v1::persistence_service_client::PersistenceServiceClient as Persistence;
        let channel = self.channel.clone();
        streaming!(channel, method, body;
            Files::<Channel> {
                "FileSystem.GetManifest" get_manifest GetManifestRequest;
                "FileSystem.Grep" grep GrepRequest;
            }
            Persistence::<Channel> {
                "Persistence.Diff" diff DiffRequest;
            }
        )
    }
}

/// Methods whose answer is a stream.
pub(crate) const STREAMS: [&str; 3] = ["FileSystem.GetManifest", "FileSystem.Grep", "Persistence.Diff"];

/// The route of `Service.Method`.
pub(crate) fn route_of(method: &str) -> &'static RouteInfo {
    let (service, name) = method.split_once('.').unwrap();
    let full = format!("aether.v1.{service}Service.{name}");
    ROUTES.iter().find(|r| r.method == full).unwrap_or_else(|| panic!("{method} has no route"))
}

/// `Service.Method` of a route.
pub(crate) fn method_of(route: &RouteInfo) -> String {
    route.method.trim_start_matches("aether.v1.").replacen("Service.", ".", 1)
}

/// URI and body of a request, as the generated routes want them.
pub(crate) fn request_of(route: &RouteInfo, body: Value) -> (String, Bytes) {
    let Value::Object(mut fields) = body else { panic!("a request is an object") };
    let mut uri = String::new();
    for part in route.path.split('/').skip(1) {
        uri.push('/');
        match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            // An empty segment would be another route.
            Some(field) => match fields.remove(field) {
                Some(Value::String(value)) if !value.is_empty() => uri.push_str(&percent(&value)),
                _ => uri.push_str("%20"),
            },
            None => uri.push_str(part),
        }
    }
    if route.body {
        return (uri, Value::Object(fields).to_string().into());
    }
    (uri + &query(&fields), Bytes::new())
}

fn query(fields: &Map<String, Value>) -> String {
    let mut out = String::new();
    let mut add = |name: &str, value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let separator = if out.is_empty() { '?' } else { '&' };
        write!(out, "{separator}{}={}", percent(name), percent(&text)).unwrap();
    };
    for (name, value) in fields {
        match value {
            Value::Array(list) => list.iter().for_each(|v| add(name, v)),
            value => add(name, value),
        }
    }
    out
}

pub(crate) fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
