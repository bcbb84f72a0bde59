// Several gateways before one origin that share a Redis, as in production.

import { onTestFinished } from 'vitest'
import { request } from './client.ts'
import { startGatewayBefore } from './edge.ts'
import { type TestGateway, until } from './gateway.ts'
import { type Origin, type Script, startOrigin } from './origin.ts'

/** What the admin port answers to a purge. */
export interface Purged {
  readonly purged: number
  readonly instances: readonly { readonly instance: string; readonly purged: number }[]
  readonly unacknowledged: readonly string[]
  readonly shared: boolean | null
}

export interface Instances {
  readonly origin: Origin
  readonly all: readonly TestGateway[]
  /** One more, when the others have heard of it. redisUrl: its own way to the same Redis. upstream: in place of the others'
   *  entries. */
  readonly add: (redisUrl?: string, upstream?: string) => Promise<TestGateway>
}

export interface InstancesOptions {
  /** Flow mappings, one a line; without any, all is kept for an hour. */
  readonly routes?: readonly string[]
  readonly script?: Script
  /** Of the YAML's `redis`, beside the URL. The deadline is long, so that no slow machine is seen as a slow Redis. */
  readonly redis?: string
  /** Further entries of the upstream `origin`. */
  readonly upstream?: string
  /** More YAML, top level. */
  readonly more?: string
}

export async function startInstances(
  count: number,
  redisUrl: string,
  options: InstancesOptions = {},
): Promise<Instances> {
  const {
    routes = ['{path: /*, cache: {ttl: 1h}}'],
    script,
    redis = 'deadline: 2s',
    upstream = '',
    more = '',
  } = options
  const origin = await startOrigin(script)
  onTestFinished(() => origin.close())
  const all: TestGateway[] = []
  const add = async (url = redisUrl, ownUpstream = upstream): Promise<TestGateway> => {
    const gateway = await startGatewayBefore(origin.url, {
      routes,
      upstream: ownUpstream,
      more: `redis: {url: "${url}", ${redis}}\n${more}`,
    })
    all.push(gateway)
    return gateway
  }
  for (let i = 0; i < count; i++) await add()
  return { origin, all, add }
}

/** By this name clients know all of them, so that keys are the same everywhere. */
const FIELDS = { Host: 'shop.test' }

/** What a client gets: `HIT answer 1`. */
export async function ask(gateway: TestGateway, path: string): Promise<string> {
  const { headers, text } = await request(`${gateway.url}${path}`, { headers: FIELDS })
  return `${String(headers['x-cache'])} ${text}`
}

/** Changes what is at a path; resolves with the status. */
export const put = async (gateway: TestGateway, path: string): Promise<number> =>
  (await request(`${gateway.url}${path}`, { method: 'PUT', headers: FIELDS })).status

export async function purgeBy({ adminUrl }: TestGateway, rule: Record<string, unknown>): Promise<Purged> {
  const response = await fetch(`${adminUrl}/api/cache/purge`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(rule),
  })
  return (await response.json()) as Purged
}

/** Entries in its memory. */
export const stored = ({ gateway }: TestGateway): number => gateway.stats().cache.entries

export const whenEmpty = (gateway: TestGateway): Promise<void> =>
  until(() => stored(gateway) === 0, 'all that is stored to go')
