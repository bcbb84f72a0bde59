// `weirgate explain`: what would become of a request, without sending it. Asks the running gateway, whose cache and
// counters are real; where none runs, tells what the route table alone says.

import { Command } from 'commander'
import { readConfig } from '../config/load.ts'
import type { ExplainRequest, ExplainedLimit, Explanation } from '../core/control.ts'
import { createGateway } from '../gateway.ts'
import { NotRunning, askAdmin } from './admin-client.ts'
import { UsageError, configOf, configOption, jsonOption } from './files.ts'

interface Options {
  readonly config: string
  readonly json?: boolean
  readonly header: readonly string[]
  readonly data?: string
}

export const explainCommand = () =>
  new Command('explain')
    .description('tell what would become of a request, without sending it')
    .argument('<method>')
    .argument('<url>', 'absolute, or a path')
    .option('-H, --header <field>', 'a header field, as `Name: value`; may come several times', collect, [])
    .option('-d, --data <body>', 'the body; JSON, unless a Content-Type field says otherwise')
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (method: string, url: string, options: Options) => {
      const headers = options.header.flatMap(splitField)
      const hasType = headers.some((text, i) => i % 2 === 0 && text.toLowerCase() === 'content-type')
      if (options.data !== undefined && !hasType) {
        headers.push('Content-Type', 'application/json')
      }
      const request = {
        method: method.toUpperCase(),
        url,
        headers,
        ...(options.data !== undefined && { body: options.data }),
      }
      const { explanation, live } = await explain(options.config, request)
      if (options.json === true) console.log(JSON.stringify(explanation, null, 2))
      else console.log(describe(explanation, live))
    })

const collect = (field: string, fields: readonly string[]): readonly string[] => [...fields, field]

function splitField(field: string): [string, string] {
  const colon = field.indexOf(':')
  if (colon < 1) throw new UsageError(`expected a header field such as "Accept: text/html", got "${field}"`)
  return [field.slice(0, colon).trim(), field.slice(colon + 1).trim()]
}

async function explain(file: string, request: ExplainRequest): Promise<{ explanation: Explanation; live: boolean }> {
  const { admin } = configOf(file)
  const { headers } = request
  const fields: Record<string, string[]> = {}
  for (let i = 0; i < headers.length; i += 2) (fields[headers[i] as string] ??= []).push(headers[i + 1] as string)
  try {
    const answer = await askAdmin(admin, 'POST', '/api/explain', 'client_ip', { ...request, headers: fields })
    return { explanation: answer as Explanation, live: true }
  } catch (error) {
    if (!(error instanceof NotRunning)) throw error
    const gateway = createGateway({ load: () => readConfig(file, process.env) })
    const explanation = await gateway.explain(request)
    await gateway.destroy()
    return { explanation, live: false }
  }
}

function verdictOf({ admitted, mode, counts, retry_after_s }: ExplainedLimit): string {
  const who = counts === 'misses' ? ' if the upstream is asked' : ''
  if (admitted) return `admitted${who}`
  const verdict = mode === 'shadow' ? 'would refuse, only watches' : 'refused'
  return `${verdict}${who}${retry_after_s === null ? '' : `, try again in ${retry_after_s} s`}`
}

const KEYS: Readonly<Record<NonNullable<Explanation['idempotency']>, string>> = {
  none: 'no Idempotency-Key, so it is carried out each time it is sent',
  missing: 'no Idempotency-Key, and the route requires one: 400',
  invalid: 'the Idempotency-Key is none, or without credentials too short to be used: 400',
  first: 'the Idempotency-Key is new: it would be carried out',
  joined: 'the Idempotency-Key is of a request under way, whose answer it would get',
  replayed: 'the Idempotency-Key has an answer, which it would get again',
  reused: 'the Idempotency-Key is of another request: 422',
  unknown: 'what became of the first request with the Idempotency-Key is not known: 409',
  not_kept: 'the answer of the Idempotency-Key is not at hand any more: 409',
}

/** But for requests, which go without saying. */
const UNITS: Readonly<Record<string, string>> = { tokens: ' tokens', 'cost-millionths': ' millionths of cost' }

function describe(e: Explanation, live: boolean): string {
  const noRoute = e.refused === null ? 'none: the gateway answers its health path itself' : 'none'
  const lines: [string, string][] = [
    ['request', `${e.method} ${e.host}${e.target} from ${e.client_ip}`],
    ['route', e.route ?? noRoute],
  ]
  if (e.user !== null) lines.push(['user', e.user])
  if (e.refused !== null) lines.push(['refused', `${e.refused.status} ${e.refused.code}: ${e.refused.detail}`])
  if (e.upstream !== null) lines.push(['upstream', `${e.upstream} ${e.upstream_target}`])
  for (const limit of e.limits) {
    const window = limit.window_s === null ? 'at the same time' : `per ${limit.window_s} s`
    lines.push([
      'limit',
      `${limit.policy}: ${verdictOf(limit)}; ${limit.remaining} of ${limit.limit}${UNITS[limit.unit] ?? ''} ${window} left for ${limit.key}`,
    ])
  }
  if (e.cache !== null) {
    const age = e.cache.age_s === null ? '' : `, age ${e.cache.age_s} s, fresh for ${e.cache.ttl_s} s`
    lines.push(['cache', `${e.cache.outcome}${age}${e.cache.reason === null ? '' : `: ${e.cache.reason}`}`])
    for (const [name, value] of e.cache.key_parts) {
      lines.push(name === 'url' ? ['key', value ?? ''] : ['', `${name}: ${value ?? 'none'}`])
    }
    if (e.cache.tags.length > 0) lines.push(['tags', e.cache.tags.join(' ')])
  }
  if (e.idempotency !== null) lines.push(['once', KEYS[e.idempotency]])
  if (!live) lines.push(['note', 'no gateway runs at the admin address, so its cache and counters are taken as empty'])
  return lines.map(([name, value]) => `${name.padEnd(9)} ${value}`).join('\n')
}
