// The tables of the README, from the baseline alone. They stand between two marks.

import type { Results } from './results.ts'
import type { Figure } from './scenario.ts'

const MARKS = ['<!-- figures -->\n', '<!-- /figures -->'] as const

/** The README with other tables. Throws where it has no place for them. */
export function withTables(readme: string, tables: string): string {
  const [start, end] = [readme.indexOf(MARKS[0]), readme.indexOf(MARKS[1])]
  if (start === -1 || end < start) throw new Error(`README.md has no ${MARKS.join(' ')}`)
  return readme.slice(0, start) + MARKS[0] + tables + readme.slice(end)
}

const PEERS = ['nginx', 'HAProxy', 'Varnish', 'http-proxy-3', '@fastify/http-proxy']

/** Markdown. */
export function tablesOf(results: Results): string {
  const { servers, machine, commit, measuredAt } = results
  const versions = Object.entries(servers)
    .filter(([name]) => PEERS.includes(name))
    .map(([name, { version }]) => `${name} ${version}`)
  return `${cpuTable(results)}
${usersTable(results)}
${sentences(results)}

Measured ${measuredAt.slice(0, 10)} at ${commit} on ${machine}; ${versions.join(', ')}.
`
}

function cpuTable(results: Results): string {
  const row = (what: string, scenario: string): string[] => [
    what,
    ...['weirgate', ...PEERS].map((server) => show(figureOf(results, scenario, server, 'cpuUs'))),
  ]
  return table(
    ['CPU per request, µs', 'Weirgate', ...PEERS],
    [row('hit, 0.7 KiB', 'hit'), row('hit, 100 kB', 'hit-100kB'), row('304', '304'), row('miss', 'miss')],
  )
}

function usersTable(results: Results): string {
  const figure = (server: string, name: Figure): number | undefined => figureOf(results, 'hundred-users', server, name)
  const check = (what: string): number | undefined => checkOf(results, 'hundred-users', what)
  const both = (what: string, name: Figure): string[] => [
    what,
    show(figure('direct', name)),
    show(figure('weirgate', name)),
  ]
  const hitRates = ['presentations', 'templates', 'themes', 'ai'].map(
    (kind) => `${show((check(`hit rate, ${kind}`) ?? Number.NaN) * 100)} %`,
  )
  const seconds = check('seconds')
  const hits = (['meanMs', 'p95Ms', 'p99Ms'] as const).map((name) => show(figure('weirgate, from its cache', name)))
  const waited = (check('part of their time that users waited for first answers') ?? Number.NaN) * 100
  const memory = [check('resident before the first request, MiB'), figure('weirgate', 'residentMib')].map(show)
  return table(
    [`100 users on the demo backends${seconds === undefined ? '' : `, ${seconds} s`}`, 'direct', 'through Weirgate'],
    [
      both('requests/s', 'requestsPerSecond'),
      both('mean, ms', 'meanMs'),
      both('p50, ms', 'p50Ms'),
      both('p95, ms', 'p95Ms'),
      both('p99, ms', 'p99Ms'),
      ...(seconds === undefined
        ? []
        : [
            ['what came from the cache: mean, p95, p99, ms', '', hits.join(', ')],
            ['time that they waited for first answers', '', `${show(waited)} %`],
          ]),
      both('errors', 'errors'),
      both('backend queries per request', 'originPerRequest'),
      ['hit rate: presentations, templates, themes, AI', '', hitRates.join(', ')],
      [
        'AI from the cache, p99 in the gateway, ms',
        '',
        show(check('AI answer from the cache, ms in the gateway, p99')),
      ],
      ['memory at rest and at the end, MiB', '', memory.join(', ')],
    ],
  )
}

function sentences(results: Results): string {
  const ratio = (scenario: string): string => show(results.scenarios[scenario]?.checks[0]?.value)
  const redisMs = checkOf(results, 'hit-redis-limit', 'ms that a check against Redis adds at p50, one connection')
  const idleBytes = figureOf(results, 'connections-5k', 'weirgate', 'idleConnectionBytes')
  const readyMs = figureOf(results, 'start', 'weirgate, built', 'readyMs')
  const firstMs = figureOf(results, 'start', 'weirgate, built, first start', 'readyMs')
  const first = firstMs === undefined ? '' : `, and ${show(firstMs)} ms after its first`
  return `A hit costs ${ratio('routes-10k')} times as much with 10,000 routes as with 10, and ${ratio('entries-1M')} times as much among 1,000,000
stored answers as among 1,000. A limit in Redis adds ${show(redisMs)} ms at p50. An idle connection takes ${show((idleBytes ?? Number.NaN) / 1024)} KiB.
With 1,000 routes it is ready ${show(readyMs)} ms after its start${first}.`
}

const figureOf = ({ scenarios }: Results, scenario: string, server: string, name: Figure): number | undefined =>
  scenarios[scenario]?.rows.find((row) => row.server === server)?.figures[name]

const checkOf = ({ scenarios }: Results, scenario: string, what: string): number | undefined =>
  scenarios[scenario]?.checks.find((check) => check.what === what)?.value

/** Three digits; nothing for what was not measured. */
const show = (value: number | undefined): string => {
  if (value === undefined || !Number.isFinite(value)) return ''
  if (value >= 100) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(value < 0.1 ? 2 : 3)))
}

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  `${[head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`
