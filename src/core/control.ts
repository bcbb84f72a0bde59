// Everything that the admin port and the command line may ask of a running gateway. Types only: gateway.ts implements
// Control, admin/ and cli/ speak it, so neither knows how the gateway is built. Field names are the JSON on the wire.

import type { HeaderList } from './context.ts'

export interface HealthReport {
  readonly status: 'ok' | 'degraded' | 'draining'
  /** partly: of a Redis Cluster some masters are lost. */
  readonly redis: 'ok' | 'partly' | 'down' | 'off'
  /** degraded: some of its targets are out, their breaker is open, or they are cooling down; down: all. */
  readonly upstreams: Readonly<Record<string, 'ok' | 'degraded' | 'down'>>
  /** Why nothing goes to the upstreams, or that the heap has no room for storing more; null: there is no overload. */
  readonly overload: 'lag' | 'heap' | 'storing' | null
  readonly config: { readonly loaded_at: string; readonly error: string | null }
  readonly version: string
  readonly uptime_s: number
}

export interface RouteRow {
  readonly route: string
  readonly host: string | null
  readonly path: string
  readonly methods: readonly string[] | null
  readonly upstream: string
  /** Which requests go to which other upstream, in words: `5 % of clients to next`; null where none do. */
  readonly canary: string | null
  /** Copies of how many of its requests go where; null where none do. */
  readonly mirror: string | null
  /** How the route caches, in words: `ttl 1h, public`; null when it does not. */
  readonly cache: string | null
  /** Names of the limits, in the order in which they are charged. */
  readonly limits: readonly string[]
  /** It lets WebSockets through. */
  readonly websocket: boolean
  /** What it makes of an Idempotency-Key, in words: `POST PATCH, 1d`; null when nothing. */
  readonly idempotency: string | null
}

export interface UpstreamRow {
  readonly upstream: string
  /** Further attempts that requests have taken. */
  readonly retries: number
  /** Second attempts while the first was still out, and those of them that were the first to answer. */
  readonly hedges: number
  readonly hedges_won: number
  /** Requests that it may have at the same time at present; null: as many as come. */
  readonly limit: number | null
  /** Requests in line for a place, where the upstream has so many at the same time, and those refused for want of one. */
  readonly waiting: number
  readonly refused: number
  readonly targets: readonly {
    readonly url: string
    readonly weight: number
    /** Which requests: reads are those that cannot change anything. */
    readonly takes: 'all' | 'reads' | 'writes'
    /** out: it gets no requests; starting: it was out, and gets fewer than its share. */
    readonly state: 'up' | 'starting' | 'out'
    /** Null where it has none. Open: it gets no requests; half-open: one at a time. */
    readonly breaker: 'closed' | 'open' | 'half-open' | null
    /** Until when it gets no requests, since it has asked for that by Retry-After; null where it gets some. */
    readonly cooling_until: string | null
    /** How often it went out. */
    readonly exits: number
    /** How many its name has; null where it is given by its address. And look-ups that have failed. */
    readonly addresses: number | null
    readonly resolve_failures: number
    readonly open_connections: number
    readonly in_flight: number
    readonly queued: number
  }[]
}

/** An imagined request: explained, never sent. */
export interface ExplainRequest {
  readonly method: string
  /** Absolute, or a path. */
  readonly url: string
  readonly headers: HeaderList
  readonly body?: string
  /** The address that it comes from; without it, this machine. */
  readonly client?: string
}

export interface Explanation {
  readonly method: string
  readonly host: string
  /** The normalised target: what is matched, keyed and sent. */
  readonly target: string
  readonly client_ip: string
  /** Whom the credentials among its fields name; null: nobody, or no route asks. */
  readonly user: string | null
  /** null: none, or the gateway answers this path itself (health), in which case nothing is refused. */
  readonly route: string | null
  readonly upstream: string | null
  /** Path and query as the upstream would see them. */
  readonly upstream_target: string | null
  readonly limits: readonly ExplainedLimit[]
  readonly cache: ExplainedCache | null
  /** What its Idempotency-Key would make of it, as far as this instance knows; none: it has none. Null where it counts for
   *  nothing. */
  readonly idempotency: ExplainedKey | null
  /** What a client would get instead of an answer, where the request would be refused. */
  readonly refused: { readonly status: number; readonly code: string; readonly detail: string } | null
}

/** first: it would go on. The others as a request would meet them. */
export type ExplainedKey =
  | 'none'
  | 'missing'
  | 'invalid'
  | 'first'
  | 'joined'
  | 'replayed'
  | 'reused'
  | 'unknown'
  | 'not_kept'

export interface ExplainedLimit {
  readonly policy: string
  /** One that only watches refuses nothing. */
  readonly mode: 'enforce' | 'shadow'
  /** Every request, or only those that the upstream is asked for. */
  readonly counts: 'requests' | 'misses'
  readonly admitted: boolean
  /** What `limit` and `remaining` count: requests, tokens, cost-millionths, concurrent-requests. */
  readonly unit: string
  readonly limit: number
  readonly remaining: number
  /** null for requests at the same time, which have none. */
  readonly window_s: number | null
  /** The parts of the key, as `ip=192.0.2.7`. */
  readonly key: string
  /** null where it is admitted, or costs more than there ever is. */
  readonly retry_after_s: number | null
}

export interface ExplainedCache {
  /** What would happen now. */
  readonly outcome: 'hit' | 'stale' | 'miss' | 'bypass'
  readonly reason: string | null
  /** Null where it has none. */
  readonly key: string | null
  /** What the key is made of, as names and values: `url`, `cookie lang`, `body`. */
  readonly key_parts: readonly (readonly [name: string, value: string | null])[]
  /** That the route gives to what it stores. */
  readonly tags: readonly string[]
  readonly age_s: number | null
  readonly ttl_s: number | null
}

/** What to purge. An absolute URL stands for http and https alike; what begins with `/` stands for every host. */
export type PurgeRequest = {
  /** What is named becomes stale at once, in place of being removed. */
  readonly soft?: true
} & (
  | { readonly urls: readonly string[] }
  | { readonly tags: readonly string[] }
  /** Of a URL. */
  | { readonly prefix: string }
  /** A whole URL, in which `*` stands for any text. */
  | { readonly pattern: string }
  | { readonly all: true }
)

/** What the cache holds for one URL; never bodies. */
export interface StoredEntries {
  readonly entries: readonly StoredEntry[]
  /** True where more are stored than are listed. */
  readonly truncated: boolean
}

export interface StoredEntry {
  readonly url: string
  /** What its key has beside the URL; null: nothing. */
  readonly key: string | null
  readonly status: number
  /** The request fields that select it, by lower-case name; null: absent. */
  readonly vary: Readonly<Record<string, string | null>>
  readonly age_s: number
  /** For how long it is still fresh; 0 when it is not. */
  readonly ttl_s: number
  readonly tags: readonly string[]
  /** Of its body, or of the parts of it that are stored. */
  readonly body_bytes: number
  /** Of its whole body; null where only parts are stored, and the upstream did not say of how many bytes. */
  readonly complete_bytes: number | null
  /** Of its body in each content coding that is at hand. */
  readonly codings: Readonly<Record<string, number>>
  /** Of the memory that it takes. */
  readonly size_bytes: number
}

export interface PurgeResult {
  /** Stored responses removed, or made stale by a soft purge, on all instances that answered; variants counted one by
   *  one. */
  readonly purged: number
  /** This instance first. */
  readonly instances: readonly { readonly instance: string; readonly purged: number }[]
  /** Instances that run and did not answer in time: they do it as soon as they hear of it. */
  readonly unacknowledged: readonly string[]
  /** False where Redis could not be reached, so that the others hear of it only when it is back; null where there are no
   *  others. */
  readonly shared: boolean | null
}

/** An Idempotency-Key that was freed by hand. */
export interface KeyFreed {
  readonly route: string
  /** By which it is known in Redis and in the log: the key itself may be a secret. */
  readonly key_digest: string
  /** Requests that may be sent again now, one for each who has sent the key. */
  readonly freed: number
  /** False where Redis did not say that it has done so: then nothing else was; null where there are no other instances. */
  readonly shared: boolean | null
}

/** Counts and latency of one route, or of all. Latencies in milliseconds, from a histogram with 5 % wide buckets or finer. */
export interface StatsRow {
  readonly requests: number
  readonly errors: number
  readonly limited: number
  readonly cache: Readonly<Record<string, number>>
  /** Hits per request that consulted the cache; null where none did. */
  readonly hit_rate: number | null
  readonly bytes: number
  readonly saved: Savings
  readonly latency_ms: {
    readonly mean: number
    readonly p50: number
    readonly p95: number
    readonly p99: number
    readonly max: number
  }
}

/** What the cache has made needless, of requests that would have gone to the upstream. Costs are those of the routes'
 *  `cache.callCost`, 0 without. */
export interface Savings {
  /** Fetches that what is stored has spared. */
  readonly fetches: number
  /** What those fetches would have taken, as long as the stored one had, less what the answers from the cache took. */
  readonly seconds: number
  readonly cost: number
  /** Requests that shared another one's fetch; they have waited for it. Not among the above. */
  readonly collapsed_fetches: number
  readonly collapsed_cost: number
}

/** In what misses of a route differ from requests of shortly before, where that is one field or two. */
export interface NearMisses {
  /** Misses of late that were looked at; a sample of all. */
  readonly misses: number
  /** The most frequent first. */
  readonly differs: readonly {
    /** A JSON Pointer into the body, or the name of a parameter of the query. */
    readonly field: string
    readonly percent_of_misses: number
    /** What to write into the route table, and on what condition; null where nothing suggests itself. */
    readonly advice: string | null
  }[]
}

export interface Stats {
  readonly uptime_s: number
  readonly since_start: { readonly total: StatsRow; readonly routes: Readonly<Record<string, StatsRow>> }
  readonly last_minute: { readonly total: StatsRow; readonly routes: Readonly<Record<string, StatsRow>> }
  readonly cache: { readonly entries: number; readonly bytes: number; readonly max_bytes: number }
  /** By route, where there are any. */
  readonly near_misses: Readonly<Record<string, NearMisses>>
  /** What the limits have decided since start, by policy. */
  readonly limits: Readonly<Record<string, LimitCounts>>
}

export interface LimitCounts {
  readonly admitted: number
  readonly refused: number
  /** Would have been refused by a policy that only watches. */
  readonly shadowed: number
  /** The same decisions, by who has decided. */
  readonly by_source: Readonly<Record<string, number>>
}

/** A policy with its rules. */
export interface LimitRow {
  readonly policy: string
  readonly mode: 'enforce' | 'shadow'
  /** In words: `60 per 1m, sliding`. */
  readonly rule: string
  /** The parts of the key: what names a subject. */
  readonly key: readonly string[]
  /** Routes that name it. */
  readonly routes: readonly string[]
  readonly decisions: LimitCounts
}

/** A subject by the parts of a policy's key: `{ip: '192.0.2.7', 'header:x-api-key': 'a'}`. */
export type LimitSubject = Readonly<Record<string, string>>

export interface LimitStanding {
  readonly policy: string
  readonly mode: 'enforce' | 'shadow'
  readonly key: string
  readonly admitted: boolean
  readonly limit: number
  readonly remaining: number
  /** Until one unit fits; null where one fits now. */
  readonly retry_after_s: number | null
  /** Until nothing counts as used. */
  readonly full_after_s: number
}

/** Who has drawn on a policy the most in the last five to ten minutes, as far as this instance has seen. */
export interface LimitTop {
  readonly policy: string
  readonly subjects: readonly {
    readonly key: string
    /** Units asked for, those refused included; more than there were by `excess` at most. */
    readonly units: number
    readonly excess: number
    /** Requests that were not admitted. */
    readonly refused: number
  }[]
}

export type ReloadResult =
  | { readonly ok: true; readonly loaded_at: string }
  | { readonly ok: false; readonly error: string }

export interface Control {
  health(): HealthReport
  /** Prometheus text format, version 0.0.4. */
  metrics(): string
  stats(): Stats
  routes(): readonly RouteRow[]
  upstreams(): readonly UpstreamRow[]
  /** The running configuration as plain JSON, secrets hidden. */
  config(): unknown
  explain(request: ExplainRequest): Promise<Explanation>
  /** Removes stored responses, all variants, or makes them stale. Rejects with a GatewayError where a text is no URL. */
  purge(request: PurgeRequest): Promise<PurgeResult>
  /** What is stored under a URL: absolute, or a path that stands for every host. Rejects as purge does. */
  entries(url: string): Promise<StoredEntries>
  /** Lets the requests with a key be sent again of which nobody knows what became of them. Rejects with a GatewayError where
   *  the route has no keys, or where the text is none. */
  freeKey(route: string, key: string): Promise<KeyFreed>
  /** Policies in the order of the configuration. */
  limits(): readonly LimitRow[]
  /** How a subject stands with a policy. This and what follows reject with a GatewayError where there is no such policy, or
   *  where the parts do not name a subject of it. */
  limitStanding(policy: string, subject: LimitSubject): Promise<LimitStanding>
  /** Forgets what a subject has used. */
  resetLimit(policy: string, subject: LimitSubject): Promise<LimitStanding>
  /** Gives units back to a subject, never more than it has used. */
  refundLimit(policy: string, subject: LimitSubject, units: number): Promise<LimitStanding>
  limitTop(policy: string): Promise<LimitTop>
  reload(): Promise<ReloadResult>
}
