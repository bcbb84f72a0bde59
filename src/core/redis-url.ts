// The text `redis.url` as an address: one server, a Redis Cluster, or a master that Sentinels know. Pure.
//
//   redis://[user:password@]host[:6379][/database]
//   redis+cluster://[user:password@]host[:6379],host[:6379]
//   redis+sentinel://[user:password@]host[:26379],host[:26379]/master-name[/database]
//
// `rediss` in place of `redis` speaks TLS. User and password are percent-encoded, and belong to the data servers. One
// host of a cluster or one Sentinel is enough to find the rest; more of them survive the loss of the first.

export interface RedisHost {
  readonly host: string
  readonly port: number
}

interface Access {
  readonly hosts: readonly [RedisHost, ...RedisHost[]]
  readonly tls: boolean
  /** '' where none is given. */
  readonly user: string
  readonly password: string
}

export type RedisAddress =
  | (Access & { readonly kind: 'single'; readonly database: number })
  | (Access & { readonly kind: 'cluster' })
  | (Access & { readonly kind: 'sentinel'; readonly master: string; readonly database: number })
  | { readonly kind: 'invalid'; readonly cure: string }

const invalid = (cure: string): RedisAddress => ({ kind: 'invalid', cure })

const URL_FORM = /^(rediss?)(?:\+(cluster|sentinel))?:\/\/(?:([^@/]*)@)?([^@/?#]*)((?:\/[^/?#]*)*)$/

/** Reads a URL; what it does not understand is `invalid`, with a cure that repeats nothing of the text. */
export function parseRedisUrl(url: string): RedisAddress {
  const match = URL_FORM.exec(url)
  if (match === null)
    return invalid('write redis://host:6379, redis+cluster://host,host or redis+sentinel://host,host/master')
  const [, scheme, form = 'single', login = '', list = '', path = ''] = match
  const [first, ...rest] = list.split(',').map((text) => parseHost(text, form === 'sentinel' ? 26_379 : 6379))
  const hosts = [first, ...rest].filter((host) => host !== null && host !== undefined)
  const [firstHost, ...otherHosts] = hosts
  if (firstHost === undefined || hosts.length < 1 + rest.length)
    return invalid('each host is a name or an address, then :port if not the usual')
  const colon = login.indexOf(':')
  const user = decode(colon === -1 ? login : login.slice(0, colon))
  const password = decode(colon === -1 ? '' : login.slice(colon + 1))
  if (user === null || password === null) return invalid('percent-encode what is special in user and password')
  if (user !== '' && password === '')
    return invalid('a user needs a password: user:password@; a password alone is :password@')
  const access = { hosts: [firstHost, ...otherHosts], tls: scheme === 'rediss', user, password } as const
  const parts = path
    .split('/')
    .slice(1)
    .filter((part) => part !== '')
  if (form === 'cluster') {
    return parts.length === 0
      ? { kind: 'cluster', ...access }
      : invalid('a Redis Cluster has no numbered databases: leave the path out')
  }
  if (form === 'single' && rest.length > 0) return invalid('several hosts are redis+cluster:// or redis+sentinel://')
  const master = form === 'sentinel' ? decode(parts.shift() ?? '') : ''
  const [number = '0', ...tooMuch] = parts
  if (tooMuch.length > 0 || !/^\d{1,4}$/.test(number))
    return invalid('the path ends with the number of the database, or without')
  const database = Number(number)
  if (form === 'single') return { kind: 'single', ...access, database }
  return master === null || master === ''
    ? invalid('name the master: redis+sentinel://host,host/master')
    : { kind: 'sentinel', ...access, master, database }
}

/** The address without user and password, for log lines. */
export function formatRedisAddress(address: Exclude<RedisAddress, { kind: 'invalid' }>): string {
  const form = address.kind === 'single' ? '' : `+${address.kind}`
  const hosts = address.hosts.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`).join(',')
  const master = address.kind === 'sentinel' ? `/${address.master}` : ''
  const database = address.kind === 'cluster' || address.database === 0 ? '' : `/${address.database}`
  return `${address.tls ? 'rediss' : 'redis'}${form}://${hosts}${master}${database}`
}

function parseHost(text: string, usualPort: number): RedisHost | null {
  const match = /^(?:\[([\da-fA-F:.]+)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3] ?? usualPort)
  return host === undefined || port < 1 || port > 65_535 ? null : { host, port }
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text)
  } catch {
    return null
  }
}
