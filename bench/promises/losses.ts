// What becomes of limits and of waiting clients when Redis hangs, dies or forgets, and when a gateway dies.

import { setTimeout as sleep } from 'node:timers/promises'
import { startRelay } from '../../test/support/redis.ts'
import { type Asked, admitted, crowd, quantile, steady } from './fleet.ts'
import { CLIENTS, type World, exact, leftOf, redisOf, shown, timeUntil } from './world.ts'

/** 6. */
export async function outages({ redis, start, tell }: World): Promise<void> {
  const yaml = `
limits: {steady: {limit: 100, window: 1s, burst: 20}}
routes: [{path: /steady, limits: [steady]}, {path: /free}]
`
  const relay = await startRelay(redis.port)
  const direct = await start(yaml)
  const relayed = await start(yaml, { redisUrl: relay.url })
  const cases = [
    { name: 'SIGSTOP', fleet: direct, lose: async () => redis.pause(), find: async () => redis.resume() },
    {
      name: 'a line that passes nothing',
      fleet: relayed,
      lose: async () => relay.stall(),
      find: async () => relay.release(),
    },
    {
      name: 'READONLY',
      fleet: direct,
      lose: () => redis.ask('REPLICAOF', '127.0.0.1', String(relay.port)),
      find: () => redis.ask('REPLICAOF', 'NO', 'ONE'),
    },
    {
      name: 'a full server that evicts nothing',
      fleet: direct,
      lose: () => redis.ask('CONFIG', 'SET', 'maxmemory', '1'),
      find: () => redis.ask('CONFIG', 'SET', 'maxmemory', '0'),
    },
    { name: 'kill -9', fleet: direct, lose: () => redis.kill(), find: () => redis.restart() },
  ]
  for (const { name, fleet, lose, find } of cases) {
    const asking = (path: string) => steady(300, 5000, (number) => fleet.ask(number, path))
    const both = Promise.all([asking('/steady'), asking('/free')])
    await sleep(1500)
    const lostAtMs = performance.now()
    await lose()
    await sleep(2000)
    const foundAtMs = performance.now()
    await find()
    const isBack = async () => (await redisOf(fleet)).every((word) => word === 'ok')
    const backMs = await timeUntil(isBack, 10)
    const [limited, free] = await both
    const lost = (answers: readonly Asked[]) =>
      answers.filter((each) => each.sentAtMs + each.tookMs > lostAtMs && each.sentAtMs < foundAtMs)
    const within = limited.filter((each) => each.sentAtMs > lostAtMs && each.sentAtMs + each.tookMs < foundAtMs)
    const worstMs = Math.max(...lost(limited).map(({ tookMs }) => tookMs))
    const freeMs = Math.max(...lost(free).map(({ tookMs }) => tookMs))
    const slow = lost(limited).filter(({ tookMs }) => tookMs > 5).length / limited.length
    const p99 = (answers: readonly Asked[]) =>
      shown(
        quantile(
          lost(answers)
            .filter((each) => each.sentAtMs > lostAtMs + 60)
            .map(({ tookMs }) => tookMs),
          0.99,
        ),
      )
    const failed = limited.filter(({ status }) => status !== 200 && status !== 429).length
    const most = 20 + (foundAtMs - lostAtMs) / 10 + 3
    const count = admitted(within)
    tell(
      `6. Redis lost by ${name} for 2 s: none fails, none waits 60 ms longer, admitted <= ${most.toFixed(0)}`,
      `${failed} failed; ${count} admitted; longest wait ${shown(worstMs)} (without limits ${shown(freeMs)}), ` +
        `${(slow * 100).toFixed(1)} % over 5 ms, then p99 ${p99(limited)} (without limits ${p99(free)})`,
      failed > 0 || count > most
        ? false
        : worstMs <= 60 + freeMs
          ? true
          : worstMs <= 250 + 2 * freeMs
            ? 'unsure'
            : false,
    )
    tell(
      `6. after ${name}: back in use within 3 s`,
      `after ${shown(backMs)}`,
      backMs <= 3000 ? true : backMs <= 6000 ? 'unsure' : false,
    )
  }
  await relay.close()
}

/** 6, where Redis answers by fits and starts, so that each gateway finds it lost and back at times of its own. */
export async function spells({ redis, start, tell }: World): Promise<void> {
  const { ask, gateways, decidedAlone } = await start(`
limits:
  ample: {limit: 100000, window: 1h}
  failures: {limit: 100000, window: 1h, count: failure}
  few: {limit: 900, window: 1h}
routes: [{path: /ample, limits: [ample]}, {path: /failures, limits: [failures]}, {path: /few, limits: [few]}]
`)
  const during = async (path: string) => {
    const over = new AbortController()
    const stall = async () => {
      while (!over.signal.aborted) {
        redis.pause()
        await sleep(40)
        redis.resume()
        await sleep(60)
      }
    }
    const stalling = stall()
    const answers = await steady(600, 4000, (number) => ask(number, path))
    over.abort()
    await stalling
    return admitted(answers)
  }
  const ample = await during('/ample')
  const readLeft = (policy: string) => leftOf(gateways[0]?.adminUrl ?? '', policy)
  const toldMs = await timeUntil(async () => (await readLeft('ample')) === 100_000 - ample, 50)
  const alone = await decidedAlone('ample')
  const left = await readLeft('ample')
  tell(
    '6. Redis stalls 40 ms, ten times a second: what each gateway decided alone is told, to the unit',
    `${ample} admitted, ${alone} of them alone; ${100_000 - left} counted by Redis ${shown(toldMs)} later`,
    left === 100_000 - ample,
  )
  const spared = await during('/failures')
  const sparedMs = await timeUntil(async () => (await readLeft('failures')) === 100_000, 50)
  const sparedAlone = await decidedAlone('failures')
  const whole = await readLeft('failures')
  tell(
    '6. the same where only failures count: what is given back is taken off where it was counted, to the unit',
    `${spared} given back, ${sparedAlone} of them decided alone; ${100_000 - whole} counted by Redis ${shown(sparedMs)} later`,
    whole === 100_000,
  )
  const few = await during('/few')
  tell(
    '6. the same, 900 an hour: what is admitted without Redis is never more than was left',
    `${few} admitted`,
    few >= 900 && few <= 1800 + 3,
  )
}

/** 7. */
export async function wipes({ redis, start, tell }: World): Promise<void> {
  const { ask, decidedAlone } = await start(`
limits:
  day: {limit: 2000, window: 1d, align: UTC}
  hour: {limit: 500, window: 1h}
  steady: {limit: 500, window: 1h, burst: 500}
routes: [{path: /day, limits: [day]}, {path: /hour, limits: [hour]}, {path: /steady, limits: [steady]}]
`)
  const wiped = (path: string, at: number, count: number) =>
    crowd(count, CLIENTS, async (number) => {
      if (number === at) await redis.flush()
      return ask(number, path)
    })
  const day = admitted(await wiped('/day', 1500, 5000))
  tell(
    '7. Redis wiped under a quota of 2,000 a day: <= the limit and what was in flight (1,024)',
    `${day} of 5,000`,
    exact(day >= 2000 && day <= 3024, await decidedAlone('day')),
  )
  for (const policy of ['hour', 'steady']) {
    const count = admitted(await wiped(`/${policy}`, 250, 2000))
    tell(
      `7. Redis wiped under 500 an hour (${policy === 'hour' ? 'sliding' : 'gcra'}): at most one capacity more`,
      `${count} of 2,000`,
      exact(count <= 1001, await decidedAlone(policy)),
    )
  }
}

/** 11. */
export async function slots({ origin, start, tell }: World): Promise<void> {
  const { ask, gateways } = await start(
    `
limits: {slots: {kind: concurrency, limit: 50, key: host}}
routes: [{path: /slots, limits: [slots]}, {path: /held, limits: [slots]}]
`,
    { deadline: '2s' },
  )
  const answers = await crowd(4000, 200, (number) => ask(number, '/slots?delay=20'))
  const { most } = origin.busy('/slots')
  tell(
    '11. 50 slots, 200 clients, three gateways: never more than 50 at the origin',
    `at most ${most} at once; ${admitted(answers)} of ${answers.length} admitted`,
    most <= 50 && admitted(answers) > 50,
  )
  const hold = (number: number, abortAfterMs?: number) =>
    ask(number, '/held?delay=60000', abortAfterMs === undefined ? {} : { abortAfterMs })
  const fill = async () => {
    while (origin.busy('/held').now < 50) await sleep(2)
  }
  const leaving = Array.from({ length: 50 }, (_, number) => hold(number, 1500))
  await fill()
  const full = (await ask(0, '/slots')).status
  await Promise.all(leaving)
  const freeMs = await timeUntil(async () => (await ask(1, '/slots')).status === 200, 2)
  tell(
    '11. clients that end their side and go free their slots within 100 ms, for all gateways',
    `${full} while all were taken; after ${shown(freeMs)}`,
    full === 429 && (freeMs <= 100 ? true : freeMs <= 300 ? 'unsure' : false),
  )
  const held = Array.from({ length: 50 }, () => hold(2))
  await fill()
  const killedAtMs = performance.now()
  await gateways[2]?.stop('SIGKILL')
  await Promise.all(held)
  const stillFull = (await ask(0, '/slots')).status
  await timeUntil(async () => (await ask(0, '/slots')).status === 200, 50)
  const freedMs = performance.now() - killedAtMs
  tell(
    '11. kill -9 of a gateway that holds all slots: free within 31 s, and not at once',
    `${stillFull} right after, free after ${shown(freedMs)}`,
    stillFull === 429 && (freedMs <= 31_000 ? true : freedMs <= 35_000 ? 'unsure' : false),
  )
}
