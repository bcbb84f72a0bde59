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
    ...checkStandIns(raw, entries),
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

/** What is stored answers early only where it may answer at all. */
function checkStandIns(raw: unknown, limits: readonly (readonly [name: string, limit: unknown])[]): Finding[] {
  const routes = listOf(valueAt(raw, ['routes'])).filter(isMapping)
  const usual = valueAt(raw, ['defaults', 'limits'])
  const mayStandIn = routes.filter((route) => isWord(route['onLimited'], 'stale'))
  const named = new Set(mayStandIn.flatMap((route) => listOf(route['limits'] ?? usual)))
  return limits.flatMap(([name, limit]) =>
    isMapping(limit) && limit['staleFrom'] !== undefined && !named.has(name)
      ? [
          complaint(
            ['limits', name, 'staleFrom'],
            'means nothing: no route with onLimited: stale names it',
            'add onLimited: stale to a route',
          ),
        ]
      : [],
  )
}

const NOT_OF_SLOTS = [
  'window',
  'burst',
  'align',
  'count',
  'unit',
  'reserve',
  'usage',
  'weights',
  'price',
  'cost',
  'costField',
  'staleFrom',
  'lease',
]

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
  findings.push(...checkWhole(path, limit))
  if (isWord(limit['kind'], 'concurrency')) {
    for (const key of NOT_OF_SLOTS) refuse(key, 'says nothing of requests at the same time', 'remove it')
    return findings
  }
  return [
    ...findings,
    ...checkLow(path, limit),
    ...checkWindow(path, limit),
    ...checkCost(path, limit),
    ...checkLease(path, limit),
  ]
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
  const unit = (['tokens', 'cost'] as const).find((word) => isWord(limit['unit'], word)) ?? 'requests'
  const counted = unit === 'cost' ? 'cost is' : `${unit} are`
  const misfit = MISFITS[unit].find(([key]) => limit[key] !== undefined)
  if (misfit !== undefined)
    return [complaint([...path, misfit[0]], `is of ${misfit[1]}, and ${counted} counted`, misfit[2])]
  if (unit === 'cost') return checkMoney(path, limit)
  if (isMapping(limit['cost']) || limit['cost'] === undefined) return []
  const [cost, most] = [Number(limit['cost']), Number(limit['burst'] ?? limit['limit'])]
  if (cost === 0) return [complaint([...path, 'cost'], 'limits nothing', 'write 1 or more')]
  if (cost > most) return [complaint([...path, 'cost'], `never fits into ${most}`, 'raise limit or burst')]
  return []
}

/** Options that say nothing of what is counted: of what else, and the cure. */
const MISFITS: Readonly<
  Record<'requests' | 'tokens' | 'cost', readonly (readonly [key: string, of: string, cure: string])[]>
> = {
  requests: [
    ['reserve', 'tokens', 'add unit: tokens, or remove it'],
    ['usage', 'tokens', 'add unit: tokens, or remove it'],
    ['weights', 'tokens', 'add unit: tokens, or remove it'],
    ['price', 'cost', 'add unit: cost, or remove it'],
  ],
  tokens: [
    ['cost', 'requests', 'write reserve, or remove it'],
    ['price', 'cost', 'write unit: cost, or weights'],
  ],
  cost: [
    ['cost', 'requests', 'write reserve, or remove it'],
    ['weights', 'tokens', 'write price'],
  ],
}

/** Beyond it the parts of a window do not hold its millionths. */
const MOST_PER_SPAN = 2000

function checkMoney(path: Path, limit: Record<string, unknown>): Finding[] {
  const { price } = limit
  if (price === undefined)
    return [complaint([...path, 'unit'], 'counts nothing without prices', 'add price: {input: 3, output: 15}')]
  if (isMapping(price) && !['input', 'output'].some((kind) => Number(price[kind]) > 0)) {
    return [complaint([...path, 'price'], 'makes everything free', 'say what input or output costs')]
  }
  const large = limit['align'] === undefined && ['limit', 'burst'].find((key) => Number(limit[key]) > MOST_PER_SPAN)
  if (!large) return []
  const got = `beyond ${MOST_PER_SPAN} is for windows of the calendar`
  return [complaint([...path, large], got, 'add align: UTC, or another time zone')]
}

/** What is stored costs a budget nothing, or there would be no rest to keep. */
function checkLow(path: Path, limit: Record<string, unknown>): Finding[] {
  const isOfMisses = isWord(limit['count'], 'miss') || ['tokens', 'cost'].some((word) => isWord(limit['unit'], word))
  if (limit['staleFrom'] === undefined || isOfMisses) return []
  return [complaint([...path, 'staleFrom'], 'keeps nothing where hits count as well', 'add count: miss, or remove it')]
}

/** Only money comes in fractions. */
function checkWhole(path: Path, limit: Record<string, unknown>): Finding[] {
  if (isWord(limit['unit'], 'cost')) return []
  return ['limit', 'burst'].flatMap((key): Finding[] => {
    const number = Number(limit[key])
    const isFraction = limit[key] !== undefined && number > 0 && !Number.isInteger(number)
    return isFraction ? [complaint([...path, key], 'a part of a unit cannot be asked for', 'write a whole number')] : []
  })
}

function checkLease(path: Path, limit: Record<string, unknown>): Finding[] {
  const options = limitOptions.safeParse(limit)
  if (!options.success || options.data.lease !== 'on') return []
  const at: Path = [...path, 'lease']
  const quota = compileQuota('', options.data)
  if (quota.lease === 'off') {
    const got = 'lends what is known beforehand, and tokens, cost or a costField are known with the answer'
    return [complaint(at, got, 'remove it')]
  }
  const least = smallestLent(quota)
  if (quota.rate.burst >= least) return []
  const of = options.data.burst === undefined ? 'limit' : 'burst'
  return [complaint(at, `takes nothing in blocks of fewer than ${least}`, `raise ${of}, or remove it`)]
}

const isWord = (value: unknown, word: string): boolean => typeof value === 'string' && value.toLowerCase() === word

const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [value])
