// A gateway before a scriptable origin, both closed when the test ends, and what must hold on it at any time.

import { expect, onTestFinished } from 'vitest'
import type { Pulse } from '../../src/core/overload.ts'
import { request } from './client.ts'
import { type TestGateway, startGateway, until } from './gateway.ts'
import { type Origin, type Script, startOrigin } from './origin.ts'

export interface Edge {
  readonly origin: Origin
  readonly gateway: TestGateway
}

export interface EdgeOptions {
  /** Flow mapping entries for `listen`, such as `headTimeout: 200ms`. */
  readonly listen?: string
  /** Where to listen; a YAML scalar. */
  readonly address?: string
  /** Replaces the one route `/*`; flow mappings, one a line. */
  readonly routes?: readonly string[]
  /** Further entries of the upstream `origin`. */
  readonly upstream?: string
  /** Further YAML at the top level. */
  readonly more?: string
  readonly script?: Script
  /** How much there is to do; without it, nothing. */
  readonly pulse?: Pulse
}

export async function startEdge(options: EdgeOptions = {}): Promise<Edge> {
  const origin = await startOrigin(options.script)
  onTestFinished(() => origin.close())
  return { origin, gateway: await startGatewayBefore(origin.url, options) }
}

/** A gateway before an origin that the test has started itself. */
export async function startGatewayBefore(
  originUrl: string,
  options: Omit<EdgeOptions, 'script'> = {},
): Promise<TestGateway> {
  const { listen = '', address = '127.0.0.1:0', routes = ['{path: /*}'], upstream = '', more = '', pulse } = options
  const yaml = `
listen: {address: ${address}, ${listen}}
admin: {listen: 127.0.0.1:0}
upstreams: {origin: {targets: [${originUrl}], ${upstream}}}
defaults: {upstream: origin}
${more}
routes:
${routes.map((route) => `  - ${route}`).join('\n')}
`
  const gateway = await startGateway(yaml, {}, pulse === undefined ? {} : { pulse })
  onTestFinished(() => gateway.close())
  return gateway
}

/** What is left of requests that are over: nothing. Waits for it. */
export async function settled({ gateway }: Pick<Edge, 'gateway'>): Promise<void> {
  const inFlight = () =>
    gateway.gateway.upstreams().flatMap(({ targets }) => targets.map((target) => target.in_flight + target.queued))
  await until(() => inFlight().every((count) => count === 0), 'no request in flight upstream')
  await until(() => openConnections(gateway) === 0, 'no client connection')
}

export function openConnections(gateway: TestGateway): number {
  return Number(/^process_open_connections (\d+)$/m.exec(gateway.gateway.metrics())?.[1])
}

/** Everything that was sent on this many open connections has been read: a later request has been answered. */
export async function arrived(gateway: TestGateway, connections: number): Promise<void> {
  await until(() => openConnections(gateway) >= connections, `${connections} client connections`)
  for (let i = 0; i < 2; i++) await request(`${gateway.url}/health`)
}

/** A plain request goes through to the origin. */
export async function expectWorking({ gateway, origin }: Edge): Promise<void> {
  const before = origin.seen.length
  const { status } = await request(`${gateway.url}/still-works?${before}`)
  expect(status).toBe(200)
  expect(origin.seen.slice(before).map(({ url }) => url)).toEqual([`/still-works?${before}`])
}
