// The streaming server: posts to browsers as they appear, over server-sent events or WebSockets.
// A token is looked up in PostgreSQL; posts arrive through Redis.
const http = require("node:http");
const { Pool } = require("pg");
const Redis = require("ioredis");
const { WebSocketServer } = require("ws");

const env = process.env;
const pool = new Pool({
  host: env.DB_HOST || "localhost", port: Number(env.DB_PORT || 5432),
  database: env.DB_NAME || "mastodon_production", user: env.DB_USER || "mastodon", password: env.DB_PASS || undefined,
  max: Number(env.DB_POOL || 10),
  // Upstream's reading, which is not libpq's: anything but "disable" and "no-verify" demands verified TLS.
  ssl: ssl(env.DB_SSLMODE),
});
pool.on("error", (error) => console.error(`database: ${error.message}`));

function ssl(mode) {
  if (!mode || mode === "disable") return false;
  return { rejectUnauthorized: mode !== "no-verify" };
}

function redisOptions() {
  if (env.REDIS_URL) return env.REDIS_URL;
  return {
    host: env.REDIS_HOST || "localhost", port: Number(env.REDIS_PORT || 6379), db: Number(env.REDIS_DB || 0),
    username: env.REDIS_USER || undefined, password: env.REDIS_PASSWORD || undefined,
  };
}
const redis = new Redis(redisOptions());
redis.on("error", (error) => console.error(`redis: ${error.message}`));

const metrics = { connected_clients: 0, redis_messages_received_total: 0, messages_sent_total: 0 };
const listeners = new Map(); // channel name in Redis -> set of functions
redis.on("message", (channel, message) => {
  metrics.redis_messages_received_total += 1;
  for (const send of listeners.get(channel) ?? []) send(JSON.parse(message));
});

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function accountOf(token) {
  if (!token) throw new Refused(401, "Missing access token");
  const found = await pool.query(
    `SELECT users.account_id, oauth_access_tokens.id AS token_id
       FROM oauth_access_tokens
       JOIN users ON users.id = oauth_access_tokens.resource_owner_id
       JOIN accounts ON accounts.id = users.account_id
       LEFT JOIN user_roles ON user_roles.id = users.role_id
      WHERE oauth_access_tokens.token = $1 AND oauth_access_tokens.revoked_at IS NULL AND NOT users.disabled`, [token]);
  if (found.rows.length === 0) throw new Refused(401, "Invalid access token");
  return found.rows[0];
}

// Whoever loses the token or the account is hung up on, with the message {"event": "kill"}.
function untilKilled({ account_id: account, token_id: token }, hangUp) {
  const listen = ({ event }) => { if (event === "kill") hangUp(); };
  metrics.connected_clients += 1;
  const ends = [() => { metrics.connected_clients -= 1; }];
  ends.push(...[`timeline:system:${account}`, `timeline:access_token:${token}`].map((channel) => subscribe(channel, listen)));
  return () => ends.forEach((end) => end());
}

function channelOf(stream, account) {
  const known = { user: `timeline:${account}`, public: "timeline:public", "public:local": "timeline:public:local" };
  if (!known[stream]) throw new Refused(400, "Unknown channel requested");
  return known[stream];
}

function tokenOf(request, url) {
  const header = request.headers.authorization ?? "";
  return header.replace(/^Bearer /, "") || url.searchParams.get("access_token") || request.headers["sec-websocket-protocol"];
}

// Returns the function that ends the subscription.
function subscribe(channel, send) {
  if (!listeners.has(channel)) {
    listeners.set(channel, new Set());
    redis.subscribe(channel);
  }
  listeners.get(channel).add(send);
  return () => listeners.get(channel).delete(send);
}

function refuse(response, error) {
  const status = error.status ?? 500;
  if (status === 500) console.error(error.message);
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ error: error.status ? error.message : "Internal server error" }));
}

function metricsText() {
  const all = { ...metrics, connected_channels: listeners.size, pg_pool_total_connections: pool.totalCount,
    pg_pool_idle_connections: pool.idleCount, pg_pool_waiting_queries: pool.waitingCount };
  return Object.entries(all).map(([name, value]) => `# TYPE ${name} gauge\n${name} ${value}\n`).join("");
}

async function stream(request, response, url) {
  const who = await accountOf(tokenOf(request, url));
  const channel = channelOf(url.pathname.replace("/api/v1/streaming/", "").replaceAll("/", ":"), who.account_id);
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "private, no-store" });
  response.write(":)\n");
  const heartbeat = setInterval(() => response.write(":thump\n"), 15000);
  const end = subscribe(channel, ({ event, payload }) => {
    metrics.messages_sent_total += 1;
    response.write(`event: ${event}\ndata: ${payload}\n\n`);
  });
  const forget = untilKilled(who, () => response.end());
  response.on("close", () => { clearInterval(heartbeat); end(); forget(); });
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  // Says only that this process lives: neither PostgreSQL nor Redis is asked.
  if (url.pathname === "/api/v1/streaming/health") return response.end("OK");
  if (url.pathname === "/metrics") return response.end(metricsText());
  return stream(request, response, url).catch((error) => refuse(response, error));
});

const sockets = new WebSocketServer({ noServer: true });
server.on("upgrade", async (request, socket, head) => {
  const url = new URL(request.url, "http://localhost");
  try {
    const who = await accountOf(tokenOf(request, url));
    const name = url.searchParams.get("stream");
    const channel = name && channelOf(name, who.account_id);
    sockets.handleUpgrade(request, socket, head, (client) => listen(client, who, name, channel));
  } catch (error) {
    socket.end(`HTTP/1.1 ${error.status ?? 500} Refused\r\nConnection: close\r\n\r\n`);
  }
});

function listen(client, who, name, channel) {
  const account = who.account_id;
  const ends = [untilKilled(who, () => client.close())];
  const join = (stream, from) => ends.push(subscribe(from, ({ event, payload }) => {
    metrics.messages_sent_total += 1;
    client.send(JSON.stringify({ stream: [stream], event, payload }));
  }));
  if (channel) join(name, channel);
  client.on("message", (data) => {
    try {
      const wish = JSON.parse(data);
      if (wish.type === "subscribe") join(wish.stream, channelOf(wish.stream, account));
    } catch (error) {
      client.send(JSON.stringify({ error: error.message }));
    }
  });
  client.on("close", () => ends.forEach((end) => end()));
}

process.on("SIGTERM", () => process.exit(0)); // clients connect again, elsewhere
const where = env.SOCKET ? { path: env.SOCKET } : { host: env.BIND || "127.0.0.1", port: Number(env.PORT || 4000) };
server.listen(where, () => console.log(`streaming on ${env.SOCKET ?? `${where.host}:${where.port}`}`));
