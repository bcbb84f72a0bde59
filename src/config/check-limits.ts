// What of a limit goes with what: a rate has a window, a quota of the calendar one that a calendar has, slots have none.

import { parseDuration } from '../core/decode.ts'
import { MONTH_MS, isAlignable } from '../limit/calendar.ts'
import { smallestLent } from '../limit/lease.ts'
import { limitOptions } from '../limit/options.ts'
import { compileQuota } from '../limit/quota.ts'
import type { Finding } from './issues.ts'
import { isMapping, valueAt } from './path.ts'
import type { Path } from './path.ts'
import { complaint } from './raw.ts'

/** What of a limit goes with what: a rate has a window, a quota of the calendar one that a calendar has, slots have none. */
export function checkLimits(raw: unknown): Finding[] {
  const limits = valueAt(raw, ['limits'])
  const knowsUsers = valueAt(raw, ['identity']) !== undefined
  const entries = Object.entries(isMapping(limits) ? limits : {})
  return [
    ...entries.flatMap(([name, limit]) => (isMapping(limit) ? checkLimit(['limits', name], limit, knowsUsers) : [])),
    ...checkNumbers(entries),
  ]
}

/** Two policies that Redis could not tell apart would share their counters. */
function checkNumbers(limits: readonly (readonly [name: string, limit: unknown])[]): Finding[] {
  const owners = new Map<number, string>()
  return limits.flatMap(([name, limit]): Finding[] => {
    const options = limitOptions.safeParse(limit)
    if (!options.success) return []
    const { number } = compileQuota(name, options.data)
    const owner = owners.get(number)
    owners.set(number, name)
    if (owner === undefined) return []
    return [complaint(['limits', name], `by chance the same number in Redis as ${owner}`, 'rename it')]
  })
}

const NOT_OF_SLOTS = ['window', 'burst', 'align', 'count', 'unit', 'reserve', 'usage', 'cost', 'costField', 'lease']

function checkLimit(path: Path, limit: Record<string, unknown>, knowsUsers: boolean): Finding[] {
  const findings: Finding[] = []
  const refuse = (key: string, got: string, cure: string): void => {
    if (limit[key] !== undefined) findings.push(complaint([...path, key], got, cure))
  }
  const names = (key: string, isUser: (text: unknown) => boolean): boolean => listOf(limit[key]).some(isUser)
  const cure = 'say under identity.user how users are known'
  if (!knowsUsers && names('key', (part) => part === 'user')) refuse('key', 'names the user, and nobody is known', cure)
  for (const key of knowsUsers ? [] : ['allow', 'deny']) {
    const isUser = (member: unknown) => typeof member === 'string' && member.startsWith('user:')
    if (names(key, isUser)) refuse(key, 'names users, and nobody is known', cure)
  }
  if (isWord(limit['kind'], 'concurrency')) {
    for (const key of NOT_OF_SLOTS) refuse(key, 'says nothing of requests at the same time', 'remove it')
    return findings
  }
  return [...findings, ...checkWindow(path, limit), ...checkCost(path, limit), ...checkLease(path, limit)]
}

function checkWindow(path: Path, limit: Record<string, unknown>): Finding[] {
  const at: Path = [...path, 'window']
  if (limit['window'] === undefined) {
    const expected = 'a duration such as "30s", at least 100ms, or month'
    return [{ path: at, at: 'value', expected, got: null, cure: 'add "window"' }]
  }
  const text = limit['window']
  if (typeof text !== 'string') return []
  const windowMs = text === 'month' ? MONTH_MS : parseDuration(text)
  if (limit['align'] === undefined) {
    const cure = 'add align: UTC, or another time zone'
    return text === 'month' ? [complaint(at, 'a month begins and ends by a calendar', cure)] : []
  }
  const findings: Finding[] = []
  if (limit['burst'] !== undefined) {
    const got = 'a burst is of a steady rate, a window of the calendar has none'
    findings.push(complaint([...path, 'burst'], got, 'remove burst or align'))
  }
  if (windowMs !== null && !isAlignable(windowMs)) {
    const cure = 'with align: month, 7d, 1d, or what divides a day, from 1s'
    findings.push(complaint(at, `${text} fits no calendar`, cure))
  }
  return findings
}

function checkCost(path: Path, limit: Record<string, unknown>): Finding[] {
  const isTokens = isWord(limit['unit'], 'tokens')
  if (isTokens && limit['cost'] !== undefined) {
    return [complaint([...path, 'cost'], 'is of requests, and tokens are counted', 'write reserve, or remove it')]
  }
  const ofTokens = isTokens ? undefined : ['reserve', 'usage'].find((key) => limit[key] !== undefined)
  if (ofTokens !== undefined) {
    return [complaint([...path, ofTokens], 'is of tokens, and requests are counted', 'add unit: tokens, or remove it')]
  }
  if (isMapping(limit['cost']) || limit['cost'] === undefined) return []
  const [cost, most] = [Number(limit['cost']), Number(limit['burst'] ?? limit['limit'])]
  if (cost === 0) return [complaint([...path, 'cost'], 'limits nothing', 'write 1 or more')]
  if (cost > most) return [complaint([...path, 'cost'], `never fits into ${most}`, 'raise limit or burst')]
  return []
}

function checkLease(path: Path, limit: Record<string, unknown>): Finding[] {
  const options = limitOptions.safeParse(limit)
  if (!options.success || options.data.lease !== 'on') return []
  const at: Path = [...path, 'lease']
  const quota = compileQuota('', options.data)
  if (quota.lease === 'off') {
    const got = 'lends what is known beforehand, and tokens or a costField are known with the answer'
    return [complaint(at, got, 'remove it')]
  }
  const least = smallestLent(quota)
  if (quota.rate.burst >= least) return []
  const of = options.data.burst === undefined ? 'limit' : 'burst'
  return [complaint(at, `takes nothing in blocks of fewer than ${least}`, `raise ${of}, or remove it`)]
}

const isWord = (value: unknown, word: string): boolean => typeof value === 'string' && value.toLowerCase() === word

const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [value])
