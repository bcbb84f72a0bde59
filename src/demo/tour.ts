// The page that `npm start` prints: what to type, and what to look for in each answer. It goes with config/demo.yaml. The
// order matters: the limit comes last, because whoever has met it waits a minute.

/** The page, at most 45 lines of 120 columns. gatewayUrl, adminUrl: `http://host:port`, no slash at the end. */
export function tourText(gatewayUrl: string, adminUrl: string): string {
  const head = 'curl -sS -o /dev/null -D -'
  const json = `-H 'Content-Type: application/json'`
  return `Weirgate listens on ${gatewayUrl}, its admin port on ${adminUrl}.
Behind it: a presentation service (250-450 ms a request, 10 database connections) and an AI service (10 s a deck).

Cache: run it twice. "X-Cache: MISS" and hundreds of ms in X-Process-Time; then "X-Cache: HIT", about 1 ms, an Age.
  ${head} ${gatewayUrl}/api/v1/presentations
HEAD is answered from the stored GET: "X-Cache: HIT", no body.
  curl -sS -I ${gatewayUrl}/api/v1/presentations
Database queries so far: a hit adds none.
  curl -sS ${gatewayUrl}/debug/queries
Private: with Authorization nothing is shared, "X-Cache: BYPASS" each time.
  ${head} -H 'Authorization: Bearer user-7' ${gatewayUrl}/api/v1/presentations
  curl -sS -H 'Authorization: Bearer user-7' ${gatewayUrl}/api/v1/users/me

AI: a deck takes 10 s. Run it twice: "X-Cache: MISS", then "X-Cache: HIT" at once, however the same JSON is written.
  ${head} ${json} \\
    -d '{"prompt": "tides", "num_cards": 5, "style": "plain"}' ${gatewayUrl}/api/v1/ai/generate
As events: a card every 2 s. In a second terminal meanwhile: "COLLAPSED", the cards so far at once, the others as they
come. When it has ended: "HIT", all at once. The second command counts calls of the AI: one more for all of these.
  curl -sS -N -i ${json} -H 'Accept: text/event-stream' \\
    -d '{"prompt": "tides", "num_cards": 5, "style": "plain"}' ${gatewayUrl}/api/v1/ai/generate
  curl -sS ${gatewayUrl}/debug/calls
Budget: what is left of 200,000 tokens an hour, counted as the answers say. A MISS takes some, a HIT and who joins none.
  curl -sS -G -d ip=127.0.0.1 ${adminUrl}/api/limits/ai-tokens

Explain: route, cache verdict, key and limits of a request that is not sent.
  curl -sS ${json} \\
    -d '{"method": "GET", "url": "/api/v1/presentations"}' ${adminUrl}/api/explain
Purge: "purged":1; then the first command is a MISS again.
  curl -sS ${json} \\
    -d '{"tags": ["presentations"]}' ${adminUrl}/api/cache/purge
A write does the same for all that carries the tag: after it, the first command is a MISS once more.
  ${head} ${json} \\
    -d '{"title": "Tides"}' ${gatewayUrl}/api/v1/presentations
Health of the gateway; hit rate and latency by route (as a table: npm run -s weirgate -- stats); all for Prometheus.
  curl -sS ${gatewayUrl}/health
  curl -sS ${adminUrl}/api/stats
  curl -sS ${adminUrl}/metrics

Limit: 60 requests in any minute (RATE_LIMIT_PER_MINUTE). At the latest the 61st is a 429;
  for i in $(seq 61); do curl -sS -o /dev/null -w '%{http_code} ' ${gatewayUrl}/api/v1/themes; done
and Retry-After says in how many seconds to come back.
  ${head} ${gatewayUrl}/api/v1/themes

Ctrl-C ends it. LOG_LEVEL=info shows a line per request. To put it before your own backends: config/weirgate.yaml.
`
}
