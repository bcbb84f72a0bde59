// What of an upstream goes with what.

import net from 'node:net'
import type { Finding } from './issues.ts'
import { isMapping, valueAt } from './path.ts'
import type { Path } from './path.ts'
import { complaint, listAt } from './raw.ts'

export function checkUpstreams(raw: unknown): Finding[] {
  const upstreams = valueAt(raw, ['upstreams'])
  const knowsUsers = valueAt(raw, ['identity']) !== undefined
  return Object.entries(isMapping(upstreams) ? upstreams : {}).flatMap(([name, upstream]) => {
    if (!isMapping(upstream)) return []
    const path: Path = ['upstreams', name]
    return checkTargets(path, upstream).concat(
      checkBalance(path, upstream, knowsUsers),
      checkHealth(path, upstream),
      checkConcurrency(path, upstream),
      checkFraming(path, upstream),
      checkHedge(path, upstream),
      checkResolve(path, upstream),
    )
  })
}

/** Where it is plain enough to be told from others. */
function originAt(upstream: unknown, i: number): string | null {
  const target = valueAt(upstream, ['targets', i])
  return originOf(valueAt(target, ['url']) ?? target)
}

const originOf = (url: unknown): string | null =>
  typeof url === 'string' && URL.canParse(url) ? new URL(url).origin : null

/** Of all targets, the primary among them. */
function originsOf(upstream: Record<string, unknown>): ReadonlySet<string | null> {
  const targets = listAt(upstream, ['targets']).map((_target, i) => originAt(upstream, i))
  return new Set(upstream['primary'] === undefined ? targets : [...targets, originOf(upstream['primary'])])
}

function checkTargets(path: Path, upstream: Record<string, unknown>): Finding[] {
  const seen = new Set<string>()
  return listAt(upstream, ['targets']).flatMap((_target, i): Finding[] => {
    const origin = originAt(upstream, i)
    if (origin === null) return []
    if (seen.has(origin)) {
      return [complaint([...path, 'targets', i], 'the same target twice', 'give the one a weight: {url, weight: 2}')]
    }
    seen.add(origin)
    return []
  })
}

function checkBalance(path: Path, upstream: Record<string, unknown>, knowsUsers: boolean): Finding[] {
  const { balance } = upstream
  if (knowsUsers || typeof balance !== 'string' || !/^hash:user$/i.test(balance)) return []
  const cure = 'say under identity.user how users are known'
  return [complaint([...path, 'balance'], 'names the user, and nobody is known', cure)]
}

const OF_CHECKS = ['interval', 'timeout', 'healthyAfter', 'unhealthyAfter']

function checkHealth(path: Path, upstream: Record<string, unknown>): Finding[] {
  const { health } = upstream
  if (!isMapping(health) || health['path'] !== undefined) return []
  return OF_CHECKS.filter((option) => health[option] !== undefined).map((option) =>
    complaint([...path, 'health', option], 'is of checks, and nothing is checked', 'add health.path, or remove it'),
  )
}

const DEFAULT_CONNECTIONS = 64

/** Requests with a place and no connection would wait in another line, which is neither fair nor short. */
function checkConcurrency(path: Path, upstream: Record<string, unknown>): Finding[] {
  const { concurrency } = upstream
  if (!isMapping(concurrency)) return []
  const findings: Finding[] = []
  const max = Number(concurrency['max'])
  const min = Number(concurrency['min'] ?? 0)
  const connections = Number(upstream['connections'] ?? DEFAULT_CONNECTIONS)
  const most = connections * originsOf(upstream).size
  const complain = (option: string, got: string, cure: string): void =>
    void findings.push(complaint([...path, 'concurrency', option], got, cure))
  if (max > most && most > 0)
    complain('max', `more than the ${most} connections that there may be`, 'raise connections, or lower this')
  if (min > max) complain('min', `more than the ${max} that there may be at most`, 'lower it')
  const { adaptive = false } = concurrency
  if (min > 0 && (adaptive === false || adaptive === 'false'))
    complain('min', 'is of a limit that adapts, and this one is fixed', 'add adaptive: true, or remove it')
  return findings
}

/** Who cuts a TLS connection off shortens what is read from it (RFC 9112 §9.8), so its end proves nothing. */
function checkFraming(path: Path, upstream: Record<string, unknown>): Finding[] {
  if (String(upstream['framing']).toLowerCase() !== 'lenient') return []
  const isSecure = [...originsOf(upstream)].some((origin) => origin?.startsWith('https:'))
  if (!isSecure) return []
  const expected = 'strict where a target is https'
  const cure = 'a TLS connection that was cut off looks ended'
  return [{ path: [...path, 'framing'], at: 'value', expected, got: null, cure }]
}

function checkHedge(path: Path, upstream: Record<string, unknown>): Finding[] {
  if (!isMapping(upstream['hedge']) || listAt(upstream, ['targets']).length > 1) return []
  return [complaint([...path, 'hedge'], 'asks another target, and there is none', 'add a target, or remove it')]
}

function checkResolve(path: Path, upstream: Record<string, unknown>): Finding[] {
  if (upstream['resolve'] === undefined) return []
  const hosts = [...originsOf(upstream)].map((origin) => (origin === null ? '' : new URL(origin).hostname))
  if (hosts.some((host) => net.isIP(host.replace(/^\[|\]$/g, '')) === 0)) return []
  return [complaint([...path, 'resolve'], 'is of names, and all targets are addresses', 'remove it')]
}
