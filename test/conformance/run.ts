// Runs the public suite of HTTP caches against the gateway, once on its defaults (default.yaml) and once with all that is
// off for safety (suite.yaml), and prints the scores by the suite's own rules. `npm run conformance`; needs a checkout of
// the suite (suite.ts says where it is looked for), so it is no part of `npm test`.
//
// Fails where a test does not pass that is not listed here, and where one passes only when it is run again.

import { fileURLToPath } from 'node:url'
import { readConfig } from '../../src/config/load.ts'
import { createGateway } from '../../src/gateway.ts'
import { type Outcome, type Suite, type SuiteTest, openSuite } from './suite.ts'

/** Not passed, and why that is better. */
const REFUSED: Readonly<Record<string, string>> = {
  'conditional-lm-fresh-no-lm': 'wants 304 though what is stored is newer than the If-Modified-Since (RFC 9111 §4.3.2)',
  'vary-normalise-lang-select': 'wants one Accept-Language answered with what was selected by another (§4.1)',
  'partial-store-partial-reuse-partial': 'wants a part reused whose range and length disagree',
  'partial-store-partial-reuse-partial-absent': 'the same, and one byte answered in the place of another',
  'partial-store-partial-reuse-partial-byterange': 'the same',
  'partial-store-partial-reuse-partial-suffix': 'the same',
  'partial-store-partial-complete': 'wants parts combined without a strong validator (§3.4)',
}

/** Not passed by default, and which option passes it. */
const REFUSED_BY_DEFAULT: Readonly<Record<string, string>> = {
  ...REFUSED,
  'headers-store-Set-Cookie': 'a cookie is for one client; `storeSetCookie: true`',
  'other-set-cookie': 'the same',
  'headers-store-Transfer-Encoding':
    'a body in an unknown coding, whose end nobody can prove, is neither passed on nor stored; `framing: lenient`',
}

const PROFILES = [
  { name: 'default', refused: REFUSED_BY_DEFAULT },
  { name: 'suite', refused: REFUSED },
] as const

/** Prints a profile's score; answers false where it is not what it was. */
async function runProfile(suite: Suite, { name, refused }: (typeof PROFILES)[number]): Promise<boolean> {
  const origin = await suite.startOrigin()
  const file = fileURLToPath(new URL(`${name}.yaml`, import.meta.url))
  const env = { ...process.env, ORIGIN_URL: origin.url }
  const gateway = createGateway({ load: () => readConfig(file, env), logDestination: { write: () => {} } })
  const { listen } = await gateway.start()
  const baseUrl = `http://127.0.0.1:${listen.port}`
  const startedAtMs = performance.now()
  const isOpen = (outcomes: ReadonlyMap<string, Outcome>) => (id: string) =>
    outcomes.get(id) !== true && !Object.hasOwn(refused, id)
  const scored = suite.tests.filter(({ kind }) => kind !== 'check').map(({ id }) => id)

  const outcomes = new Map(await suite.run(new Set(suite.tests.map(({ id }) => id)), baseUrl))
  const failed = scored.filter(isOpen(outcomes))
  if (failed.length > 0) for (const [id, again] of await suite.run(new Set(failed), baseUrl)) outcomes.set(id, again)
  const flaky = failed.filter((id) => outcomes.get(id) === true)
  await gateway.destroy()
  origin.stop()

  const score = (kind: 'required' | 'optimal') => {
    const ofKind = suite.tests.filter((test) => (test.kind ?? 'required') === kind)
    return `${ofKind.filter(({ id }) => suite.judge(id, outcomes) === 'pass').length} of ${ofKind.length} ${kind}`
  }
  const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1)
  console.log(`${name}: ${score('required')}, ${score('optimal')}, in ${seconds} s`)
  for (const id of flaky) console.log(`  flaky: ${id}`)
  const missed = suite.tests.filter(
    (test) => isMissed(test, suite.judge(test.id, outcomes)) && !Object.hasOwn(refused, test.id),
  )
  for (const { id } of missed) console.log(`  ${suite.judge(id, outcomes)}: ${id}: ${wordsOf(outcomes.get(id))}`)
  for (const id of Object.keys(refused)) {
    if (outcomes.get(id) === true) console.log(`  passes now, take it off the list: ${id}`)
  }
  return missed.length === 0 && flaky.length === 0
}

const isMissed = ({ kind }: SuiteTest, verdict: string): boolean => kind !== 'check' && verdict !== 'pass'

const wordsOf = (outcome: Outcome | undefined): string =>
  outcome === undefined || outcome === true ? 'what it builds on does not pass' : outcome.join(': ')

let suite: Suite
try {
  suite = await openSuite(process.env)
} catch (error) {
  console.error((error as Error).message)
  process.exit(2)
}
console.log(`cache-tests, ${suite.version}, ${suite.tests.length} tests`)
let isGood = true
try {
  for (const profile of PROFILES) isGood = (await runProfile(suite, profile)) && isGood
} finally {
  suite.remove()
}
process.exit(isGood ? 0 : 1)
