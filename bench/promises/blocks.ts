// The same promises where units are lent in blocks (src/limit/leases.ts): never more than the limit, and hardly less. Hits,
// which are charged as well, so that three gateways can be asked fast enough.

import { setTimeout as sleep } from 'node:timers/promises'
import { type Asked, admitted, crowd, crowdFor, mostWithin, steady } from './fleet.ts'
import { CLIENTS, type World, exact, shown } from './world.ts'

/** What instances may hold of what is left, all together. */
const MAX_SHARE = 0.1
/** After so long, what is held has been given back. */
const RETURN_MS = 1500

const endMs = ({ sentAtMs, tookMs }: Asked) => sentAtMs + tookMs

/** Between what each of those that were admitted was decided. */
const spans = (answers: readonly Asked[]) =>
  answers
    .filter(({ status }) => status === 200)
    .map((answer) => ({ path: '', sentAtMs: answer.sentAtMs, seenAtMs: endMs(answer) }))

/** 1, 2, 3: three seconds below the limit, in which all pass, and then far above it. */
export async function lentRates({ start, tell }: World): Promise<void> {
  const { ask, decidedAlone, decidedBy } = await start(`
limits:
  small: {limit: 100, window: 1s, burst: 20, lease: on}
  steady: {limit: 600, window: 1s, burst: 300, lease: on}
  sliding: {limit: 600, window: 1s, lease: on}
  second: {limit: 600, window: 1s, lease: on}
  ten: {limit: 4000, window: 10s, lease: on}
  day: {limit: 5000, window: 1d, align: UTC, lease: on}
routes:
  - {path: /small, limits: [small], cache: {ttl: 1h}}
  - {path: /steady, limits: [steady], cache: {ttl: 1h}}
  - {path: /sliding, limits: [sliding], cache: {ttl: 1h}}
  - {path: /together, limits: [second, ten, day], cache: {ttl: 1h}}
`)
  const measure = async (
    path: string,
    policy: string,
    phases: readonly (readonly [perSecond: number, ms: number])[],
  ) => {
    const answers: Asked[] = []
    let refusedEarly = 0
    for (const [perSecond, ms] of phases) {
      refusedEarly = answers.length - admitted(answers)
      answers.push(...(await steady(perSecond, ms, (number) => ask(number, path))))
    }
    const total = admitted(answers)
    const spanMs = Math.max(...answers.map(endMs)) - (answers[0] as Asked).sentAtMs
    const alone = await decidedAlone(policy)
    const lent = ((await decidedBy(policy, 'lease')) / total) * 100
    const inWords = `${total} of ${answers.length} in ${shown(spanMs)}; ${lent.toFixed(0)} % from blocks, ${alone} decided without Redis`
    return {
      total,
      spanMs,
      alone,
      refusedEarly,
      inWords,
      within: (span: number) => mostWithin(spans(answers), span - 1),
    }
  }

  const small = await measure('/small', 'small', [[1000, 5000]])
  const [smallSecond, smallFifth] = [small.within(1000), small.within(200)]
  tell(
    '1. with `lease: on`, gcra 100/s, burst 20, asked 1,000/s for 5 s: in all 500..522, 1 s <= 122, 200 ms <= 42',
    `1 s: ${smallSecond}, 200 ms: ${smallFifth}; ${small.inWords}`,
    small.total < 500
      ? 'unsure'
      : exact(small.total <= 22 + small.spanMs / 10 && smallSecond <= 122 && smallFifth <= 42, small.alone),
  )

  const phases = [
    [450, 3000],
    [1500, 3000],
  ] as const
  const large = await measure('/steady', 'steady', phases)
  const [second, fifth] = [large.within(1000), large.within(200)]
  tell(
    '1. in blocks: gcra 600/s, burst 300, asked 450/s and then 1,500/s, 3 s each: all of the first, 1 s <= 900, 200 ms <= 420',
    `${large.refusedEarly} refused of the first, 1 s: ${second}, 200 ms: ${fifth}; ${large.inWords}`,
    exact(
      large.refusedEarly === 0 && large.total <= 300 + (large.spanMs * 600) / 1000 && second <= 900 && fifth <= 420,
      large.alone,
    ),
  )

  const slid = await measure('/sliding', 'sliding', phases)
  const most = slid.within(1000)
  tell(
    '2. in blocks: sliding 600 per 1 s, asked 450/s and then 1,500/s, 3 s each: all of the first, any 1 s <= 600',
    `${slid.refusedEarly} refused of the first, 1 s: ${most}; ${slid.inWords}`,
    exact(slid.refusedEarly === 0 && most <= 600, slid.alone),
  )

  const three = await measure('/together', 'day', [[1000, 14_000]])
  const [inSecond, inTen] = [three.within(1000), three.within(10_000)]
  tell(
    '3. in blocks: 600 per 1 s, 4,000 per 10 s and 5,000 a day together for 14 s: no bound broken',
    `1 s: ${inSecond}, 10 s: ${inTen}; ${three.inWords}`,
    exact(inSecond <= 600 && inTen <= 4000 && three.total <= 5000, three.alone),
  )
}

/** 4, 5, 7. */
export async function lentQuotas({ redis, start, tell }: World): Promise<void> {
  const limit = 30_000
  const names = ['day', 'wiped', 'killed']
  const { ask, gateways, decidedAlone, decidedBy } = await start(
    `
limits:
${names.map((name) => `  ${name}: {limit: ${limit}, window: 1d, align: UTC, lease: on}`).join('\n')}
routes: [${names.map((name) => `{path: /${name}, limits: [${name}], cache: {ttl: 1h}}`).join(', ')}]
`,
    { deadline: '2s' },
  )
  /** How many are admitted until one is refused. alive: gateways, from the first on. */
  const spend = async (path: string, alive: number): Promise<number> => {
    let [taken, isRefused] = [0, false]
    const client = async (number: number) => {
      while (!isRefused) {
        const { status } = await ask(number % alive, path)
        if (status === 200) taken++
        else isRefused = true
      }
    }
    await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)))
    return taken
  }
  /** How many more when what was held is back. */
  const spendRest = async (path: string, alive: number): Promise<number> => {
    let taken = 0
    for (let some = 1; some > 0; taken += some) {
      await sleep(RETURN_MS)
      some = await spend(path, alive)
    }
    return taken
  }

  const first = await spend('/day', 3)
  const lent = (await decidedBy('day', 'lease')) / first
  const rest = await spendRest('/day', 3)
  const least = limit * (1 - MAX_SHARE)
  tell(
    `5. in blocks: of ${limit} never more; at the first refusal >= all but instances x block (${least}); all when idle ones are back`,
    `${first} at the first refusal, then ${rest}: ${first + rest}; ${(lent * 100).toFixed(0)} % from blocks`,
    exact(first >= least && first + rest === limit, await decidedAlone('day')),
  )

  const before = admitted(await crowd(limit * 0.75, CLIENTS, (number) => ask(number, '/wiped')))
  await redis.flush()
  const after = (await spend('/wiped', 3)) + (await spendRest('/wiped', 3))
  tell(
    `7. in blocks: Redis wiped under a quota of ${limit}: <= the limit and what was in flight (1,024)`,
    `${before} before, ${after} after: ${before + after}`,
    exact(before + after <= limit + 1024, await decidedAlone('wiped')),
  )

  // Long enough for all to be known as frequent.
  const early = await crowdFor(2500, CLIENTS, (number) => ask(number, '/killed'))
  const dying = crowdFor(1000, CLIENTS, (number) => ask(number, '/killed'))
  await sleep(500)
  await gateways[2]?.stop('SIGKILL')
  const goneAtMs = performance.now()
  const late = await dying
  // Who was cut off may have been charged; who came later has found nobody.
  const cut = late.filter(({ status, sentAtMs }) => status === 0 && sentAtMs < goneAtMs).length
  const known = admitted(early) + admitted(late)
  const lost = limit - known - (await spend('/killed', 2)) - (await spendRest('/killed', 2))
  const block = Math.floor((limit * MAX_SHARE) / 3)
  tell(
    `5. in blocks: kill -9 of one of three: what is lost is no more than a block (at most ${block}) and who was cut off`,
    `${lost} lost, ${cut} cut off, of ${limit}`,
    exact(lost >= 0 && lost <= block + cut, await decidedAlone('killed')),
  )
}
