// Budgets over three instances: windows, quotas, atomic charges, costs and tokens, with clocks that are wrong, loops that
// stall, and configurations that change.

import { setTimeout as sleep } from 'node:timers/promises'
import { startRedisCluster } from '../../test/support/redis.ts'
import { type Asked, admitted, crowd, mostWithin, remainingOf, steady } from './fleet.ts'
import { CLIENTS, type World, exact, leftOf, prefer, shown, subject } from './world.ts'

/** 1, 2, 3. */
export async function windows({ origin, start, tell }: World): Promise<void> {
  const { ask, decidedAlone } = await start(`
limits:
  steady: {limit: 100, window: 1s, burst: 20}
  sliding: {limit: 100, window: 1s}
  second: {limit: 20, window: 1s}
  ten: {limit: 60, window: 10s}
  day: {limit: 100, window: 1d, align: UTC}
routes:
  - {path: /steady, limits: [steady]}
  - {path: /sliding, limits: [sliding]}
  - {path: /together, limits: [second, ten, day]}
`)
  const answers = await steady(1000, 5000, (number) => ask(number, '/steady'))
  const spanMs = Math.max(...answers.map(({ sentAtMs, tookMs }) => sentAtMs + tookMs)) - (answers[0] as Asked).sentAtMs
  const total = admitted(answers)
  const alone = await decidedAlone('steady')
  const seen = origin.seen('/steady')
  const [second, fifth] = [mostWithin(seen, 999), mostWithin(seen, 199)]
  tell(
    '1. gcra 100/s, burst 20, asked 1,000/s for 5 s: in all 510..522, 1 s <= 122, 200 ms <= 42',
    `${total} of ${answers.length} in ${shown(spanMs)}; 1 s: ${second}, 200 ms: ${fifth}; ${alone} decided without Redis`,
    total < 510 ? 'unsure' : exact(total <= 22 + spanMs / 10 && second <= 122 && fifth <= 42, alone),
  )

  await sleep((1950 - (Date.now() % 1000)) % 1000)
  const hammered = await steady(1000, 3000, (number) => ask(number, '/sliding'))
  const most = mostWithin(origin.seen('/sliding'), 999)
  const slid = admitted(hammered)
  const slidAlone = await decidedAlone('sliding')
  tell(
    '2. sliding 100 per 1 s, asked 1,000/s from 0.95 of a second on for 3 s: any 1 s <= 100, in all 270..300',
    `1 s: ${most}; in all ${slid}; ${slidAlone} decided without Redis`,
    slid < 270 ? 'unsure' : exact(most <= 100 && slid <= 400, slidAlone),
  )

  const together = await steady(100, 14_000, (number) => ask(number, '/together'))
  const three = origin.seen('/together')
  const [inSecond, inTen, inDay] = [mostWithin(three, 999), mostWithin(three, 9999), admitted(together)]
  tell(
    '3. 20 per 1 s, 60 per 10 s and 100 a day together for 14 s: no bound broken',
    `1 s: ${inSecond}, 10 s: ${inTen}, day: ${inDay} of ${together.length}`,
    exact(inSecond <= 20 && inTen <= 60 && inDay <= 100, await decidedAlone('day')),
  )
}

const QUOTAS = `
limits:
  one: {limit: 20000, window: 1d, align: UTC}
  many: {limit: 50, window: 1d, align: UTC, key: header:x-subject}
routes: [{path: /one, limits: [one]}, {path: /many, limits: [many]}]
`

/** 4, and SCRIPT FLUSH of 18; with a deadline that no busy machine misses. */
export async function quotas({ redis, origin, start, tell }: World): Promise<void> {
  const { ask, decidedAlone } = await start(QUOTAS, { deadline: '2s' })
  const one = await crowd(21_000, CLIENTS, (number) => ask(number, '/one'))
  const alone = await decidedAlone('one')
  tell(
    '4. fixed 20,000 on one key: exactly 20,000',
    `${admitted(one)} of ${one.length}, ${origin.seen('/one').length} at the origin; ${alone} decided without Redis`,
    exact(admitted(one) === 20_000 && origin.seen('/one').length === 20_000, alone),
  )
  let flushes = 0
  const flushing = setInterval(() => void redis.ask('SCRIPT', 'FLUSH').then(() => flushes++), 100)
  const many = await crowd(11_000, CLIENTS, (number) => ask(number, '/many', subject(`s${number % 200}`)))
  clearInterval(flushing)
  const errors = many.filter(({ status }) => status !== 200 && status !== 429).length
  const manyAlone = await decidedAlone('many')
  tell(
    '4., 18. 200 keys x 50, with SCRIPT FLUSH on the way: exactly 10,000, no error',
    `${admitted(many)} of ${many.length}, ${errors} errors, ${flushes} flushes; ${manyAlone} decided without Redis`,
    errors > 0 ? 'broken' : exact(admitted(many) === 10_000, manyAlone),
  )
}

/** 4 with a loop that stalls. */
export async function stalls({ start, tell }: World): Promise<void> {
  const stall =
    'setInterval(() => { const end = performance.now() + 40; while (performance.now() < end); }, 250).unref()'
  const { ask, decidedAlone } = await start(QUOTAS, { preload: () => stall })
  const many = await crowd(5500, CLIENTS, (number) => ask(number, '/many', subject(`s${number % 100}`)))
  const alone = await decidedAlone('many')
  tell(
    '4. 100 keys x 50 while each loop stalls 40 ms, four times a second: exactly 5,000, none decided without Redis',
    `${admitted(many)} of ${many.length}; ${alone} decided without Redis`,
    alone > 0 ? 'unsure' : admitted(many) === 5000,
  )
}

/** 8. */
export async function clocks({ start, tell }: World): Promise<void> {
  const policies = {
    sliding: 'limit: 200, window: 1h',
    steady: 'limit: 200, window: 1h, burst: 200',
    day: 'limit: 200, window: 1d, align: UTC',
  }
  const names = Object.keys(policies)
  const { ask, decidedAlone } = await start(
    `
limits:
${Object.entries(policies)
  .map(([name, rule]) => `  ${name}: {${rule}}`)
  .join('\n')}
routes: [${names.map((name) => `{path: /${name}, limits: [${name}]}`).join(', ')}]
`,
    { preload: (number) => `const now = Date.now; Date.now = () => now() + ${(number - 1) * 3_600_000}` },
  )
  const counts: number[] = []
  let alone = 0
  for (const name of names) {
    counts.push(admitted(await crowd(450, CLIENTS, (number) => ask(number, `/${name}`))))
    alone += await decidedAlone(name)
  }
  tell(
    '8. gateway clocks an hour behind, right and an hour ahead: 200 each of sliding, gcra and fixed',
    `${counts.join(', ')}; ${alone} decided without Redis`,
    exact(
      counts.every((count) => count === 200),
      alone,
    ),
  )
}

/** 9. */
export async function cluster({ redis, start, tell }: World): Promise<void> {
  const yaml = `
limits:
  narrow: {limit: 30, window: 1h}
  wide: {limit: 2000, window: 1d, align: UTC}
  user: {limit: 2000, window: 1d, align: UTC, key: header:x-subject}
routes:
  - {path: /single, limits: [wide, narrow]}
  - {path: /wide, limits: [wide]}
  - {path: /apart, limits: [user, narrow]}
  - {path: /user, limits: [user]}
`
  const single = await start(yaml)
  const both = await crowd(1030, CLIENTS, (number) => single.ask(number, '/single'))
  const left = remainingOf(await single.ask(0, '/wide'))
  tell(
    '9. a policy that refuses, 1,000 times: what is left of another stays as it was',
    `${admitted(both)} admitted by the narrow one; ${2000 - 1 - left} charged to the wide one`,
    exact(admitted(both) === 30 && left === 2000 - 31, await single.decidedAlone('wide')),
  )
  const nodes = await startRedisCluster()
  for (const node of nodes.nodes) await prefer(node)
  try {
    const apart = await start(yaml, { redisUrl: nodes.url })
    const answers = await crowd(600, CLIENTS, (number) => apart.ask(number, '/apart', subject('u')))
    await sleep(1000)
    const userLeft = remainingOf(await apart.ask(1, '/user', subject('u')))
    const drift = 2000 - 1 - admitted(answers) - userLeft
    const alone = (await apart.decidedAlone('user')) + (await apart.decidedAlone('narrow'))
    tell(
      '9. Redis Cluster, address and user on two nodes: <= 30 admitted, and no drift after 1 s',
      `${admitted(answers)} of 600 admitted, drift ${drift}; ${alone} decided without Redis`,
      exact(admitted(answers) <= 30 && admitted(answers) > 0 && drift === 0, alone),
    )
  } finally {
    await nodes.close()
  }
  await redis.flush()
}

/** 10, 12. */
export async function units({ start, tell }: World): Promise<void> {
  const { ask, gateways, decidedAlone } = await start(`
limits:
  units: {limit: 1000, window: 1m, cost: {POST: 7, PUT: 1001}}
  good: {limit: 100, window: 1h, count: success}
  tokens: {limit: 10000, window: 1m, unit: tokens, reserve: 500}
  brief: {limit: 100000, window: 1s, unit: tokens, reserve: 500}
routes:
  - {path: /units, limits: [units]}
  - {path: /good, limits: [good]}
  - {path: /tokens, limits: [tokens]}
  - {path: /brief, limits: [brief]}
`)
  const sevens = await crowd(180, 20, (number) => ask(number, '/units', { method: 'POST' }))
  const large = await crowd(30, 3, (number) => ask(number, '/units', { method: 'PUT' }))
  const isBare = large.every(({ status, headers }) => status === 429 && headers['retry-after'] === undefined)
  const before = remainingOf(large[0] as Asked)
  tell(
    '10. cost 7 of 1,000 a minute: admitted x 7 <= 1,000; a cost above it: 429 without Retry-After, nothing changed',
    `${admitted(sevens)} x 7 = ${admitted(sevens) * 7}; then ${before} left, ${remainingOf(large.at(-1) as Asked)} after 30 of 1,001`,
    exact(
      admitted(sevens) === 142 && isBare && large.every((each) => remainingOf(each) === 6),
      await decidedAlone('units'),
    ),
  )
  const failures = await crowd(300, CLIENTS, (number) => ask(number, '/good?status=500'))
  await sleep(100)
  const left = await leftOf(gateways[0]?.adminUrl ?? '', 'good')
  tell(
    '10. refunds never raise what is left above the limit',
    `at most ${Math.max(...failures.map(remainingOf))}, ${left} of 100 after 300 failures`,
    left === 100 && failures.every((each) => remainingOf(each) <= 100),
  )

  const costs = (number: number) => 50 + ((number * 379) % 1951)
  let spent = 0
  const tokens = await crowd(200, 12, async (number) => {
    const answer = await ask(number, `/tokens?used=${costs(number)}&delay=20`)
    if (answer.status === 200) spent += costs(number)
    return answer
  })
  const most = 10_000 + 12 * 1500
  const blocked = (await ask(0, '/tokens?used=1')).status
  tell(
    '12. 10,000 tokens a minute, 500 reserved, 50..2,000 used as answers say, 12 at once: <= 10,000 + what was in flight over its reserve',
    `${spent} <= ${most}, by ${admitted(tokens)} requests; the next one: ${blocked}`,
    spent <= most && spent >= 9000 && blocked === 429,
  )
  const broken = await crowd(100, 20, (number) => ask(number, '/brief?delay=200', { abortAfterMs: 50 }))
  await sleep(1300)
  const free = await leftOf(gateways[0]?.adminUrl ?? '', 'brief')
  tell(
    '12. 100 clients that go: nothing stays reserved beyond the window',
    `${broken.filter(({ status }) => status === 0).length} gone; ${free} of 100,000 left after a window and a slice`,
    free === 100_000,
  )
}

/** 18. */
export async function changes({ start, tell }: World): Promise<void> {
  const route = (...names: string[]) => `routes: [{path: /*, limits: [${names.join(', ')}]}]`
  const day = 'day: {limit: 5000, window: 1d, align: UTC}'
  const before = `limits: {${day}, old: {limit: 9000, window: 1h}}\n${route('day', 'old')}\n`
  const after = `limits: {new: {limit: 9000, window: 1h}, ${day}}\n${route('new', 'day')}\n`
  const fleet = await start(before)
  const running = crowd(3000, 30, (number) => fleet.ask(number, '/x'))
  const reloads: boolean[] = []
  for (const gateway of fleet.gateways) reloads.push(await gateway.reload(fleet.table(after)))
  const answers = await running
  const started = await fleet.add(after)
  const last = await fetch(`${started.url}/x`, { headers: { Host: 'shop.test' } })
  const left = Number(/"day";r=(\d+)/.exec(last.headers.get('ratelimit') ?? '')?.[1])
  const failed = answers.length - admitted(answers)
  tell(
    '18. reload of all three under load, and a new instance: the day counter goes on',
    `${reloads.filter(Boolean).length} reloads, ${failed} of ${answers.length} failed, ${left} of 5,000 left`,
    failed > 0 || reloads.includes(false) ? 'broken' : exact(left === 5000 - 3001, await fleet.decidedAlone('day')),
  )
}
