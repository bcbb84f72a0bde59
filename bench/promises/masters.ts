// A Redis Cluster that loses masters and moves slots, under three gateways: what becomes of whom each master counts.

import { setTimeout as sleep } from 'node:timers/promises'
import { type RedisCluster, type RedisServer, startRedisCluster } from '../../test/support/redis.ts'
import { type Fleet, admitted, crowd, steady } from './fleet.ts'
import { CLIENTS, type World, exact, redisOf, shown, subject, timeUntil } from './world.ts'

const YAML = `
limits:
  each: {limit: 31, window: 1h, key: header:x-subject}
  moving: {limit: 200, window: 1h, key: header:x-subject}
  many: {limit: 100000, window: 1s, key: header:x-subject}
routes:
  - {path: /each, limits: [each]}
  - {path: /moving, limits: [moving]}
  - {path: /many, limits: [many]}
  - {path: /free}
`
const FOR_MS = 5000
/** A third of the limit for each gateway, in whole units. */
const SHARES = 30
const LIMIT = 31

/** How many each of some new subjects is admitted, asked for three times its limit. */
async function askEach(fleet: Fleet, names: readonly string[]): Promise<number[]> {
  const counts: number[] = []
  for (const name of names) {
    counts.push(admitted(await crowd(3 * LIMIT, 3, (number) => fleet.ask(number, '/each', subject(name)))))
  }
  return counts
}

const namesOf = (prefix: string): string[] => Array.from({ length: 12 }, (_, i) => `${prefix}-${i}`)

/** 18. */
export async function masters({ start, tell }: World): Promise<void> {
  const cluster = await startRedisCluster()
  try {
    const fleet = await start(YAML, { redisUrl: cluster.url })
    const [victim] = cluster.nodes as readonly [RedisServer]
    const cases = [
      { name: 'SIGSTOP', lose: async () => victim.pause(), find: async () => victim.resume() },
      { name: 'kill -9', lose: () => victim.kill(), find: () => victim.restart() },
    ]
    for (const { name, lose, find } of cases) {
      const asking = (path: string) =>
        steady(300, FOR_MS, (number) => fleet.ask(number, path, subject(`s${number % 60}`)))
      const both = Promise.all([asking('/many'), asking('/free')])
      await sleep(1000)
      const lostAtMs = performance.now()
      await lose()
      await timeUntil(async () => (await redisOf(fleet)).every((word) => word === 'partly'), 10)
      const counts = await askEach(fleet, namesOf(name))
      const [limited, free] = await both
      const failed = limited.filter(({ status }) => status !== 200).length
      const worstMs = longestSince(limited, lostAtMs)
      const freeMs = longestSince(free, lostAtMs)
      tell(
        `18. a master of three lost by ${name}: no request fails, none waits 60 ms longer`,
        `${failed} of ${limited.length} failed; longest wait ${shown(worstMs)} (without limits ${shown(freeMs)})`,
        failed > 0 ? false : worstMs <= 60 + freeMs ? true : worstMs <= 250 + 2 * freeMs ? 'unsure' : false,
      )
      const own = counts.filter((count) => count === LIMIT).length
      const shared = counts.filter((count) => count === SHARES).length
      tell(
        `18. meanwhile (${name}), 12 new subjects: ${LIMIT} each where the master lives, else a third from each gateway (${SHARES})`,
        `${own} with ${LIMIT}, ${shared} with ${SHARES}, of 12`,
        own + shared === 12 && own > 0 && shared > 0 ? true : 'unsure',
      )
      await find()
      const backMs = await timeUntil(async () => (await redisOf(fleet)).every((word) => word === 'ok'), 10)
      const aloneBefore = await fleet.decidedAlone('each')
      const after = await askEach(fleet, namesOf(`${name}-after`))
      const alone = (await fleet.decidedAlone('each')) - aloneBefore
      tell(
        `18. after ${name}: the cluster has the master back, and all subjects are counted by it`,
        `${shown(backMs)} after its ${name === 'SIGSTOP' ? 'SIGCONT' : 'start'}; ${after.filter((count) => count === LIMIT).length} of 12 with ${LIMIT}; ${alone} decided without Redis`,
        exact(
          after.every((count) => count === LIMIT),
          alone,
        ),
      )
    }
  } finally {
    await cluster.close()
  }
}

/** 18, of slots that move, and of a replica that takes over. */
export async function moves({ start, tell }: World): Promise<void> {
  const cluster = await startRedisCluster({ spare: 1, replicas: 1 })
  try {
    const fleet = await start(YAML, { redisUrl: cluster.url, deadline: '2s' })
    // A node that nobody has heard of is looked at before it is asked: what has moved there is decided here until then.
    await cluster.move(0, cluster.nodes[0] as RedisServer, cluster.nodes[3] as RedisServer)
    await sleep(6000)
    const names = Array.from({ length: 20 }, (_, i) => `m${i}`)
    const asking = crowd(20 * 300, CLIENTS, (number) =>
      fleet.ask(number, '/moving', subject(names[number % 20] as string)),
    )
    let moved = 0
    for (let tries = 0; tries < 20; tries++) moved += await moveOne(cluster)
    const answers = await asking
    const failed = answers.filter(({ status }) => status !== 200 && status !== 429).length
    const alone = await fleet.decidedAlone('moving')
    tell(
      '18. slots of 20 subjects x 200 move to a node that had none, under load: exactly 4,000, none decided without Redis',
      `${admitted(answers)} of ${answers.length}, ${failed} failed, ${moved} slots moved; ${alone} decided without Redis`,
      failed > 0 ? false : moved === 0 || alone > 0 ? 'unsure' : exact(admitted(answers) === 4000, alone),
    )
    const [victim] = cluster.nodes as readonly [RedisServer]
    const running = steady(200, 12_000, (number) => fleet.ask(number, '/many', subject(`r${number % 60}`)))
    await sleep(500)
    await victim.kill()
    const killedAtMs = performance.now()
    await timeUntil(async () => !(await redisOf(fleet)).includes('ok'), 10)
    await timeUntil(async () => (await redisOf(fleet)).every((word) => word === 'ok'), 10)
    const backMs = performance.now() - killedAtMs
    const whole = await running
    const errors = whole.filter(({ status }) => status !== 200).length
    tell(
      '18. a master dies and its replica takes over by itself (node timeout 2 s): no request fails, and all is well again',
      `${errors} of ${whole.length} failed; all masters in use ${shown(backMs)} after the kill`,
      errors > 0 ? false : backMs < 15_000 ? true : 'unsure',
    )
  } finally {
    await cluster.close()
  }
}

/** Moves the slot of one of the keys that count; answers how many it has moved. */
async function moveOne(cluster: RedisCluster): Promise<number> {
  const to = cluster.nodes[3] as RedisServer
  for (const from of cluster.nodes.slice(0, 3)) {
    const [key = ''] = (await from.ask('KEYS', 'weirgate:r*')).split('\n')
    if (key === '') continue
    await cluster.move(await cluster.slotOf(key), from, to)
    return 1
  }
  await sleep(20)
  return 0
}

const longestSince = (answers: readonly { sentAtMs: number; tookMs: number }[], sinceMs: number): number =>
  Math.max(...answers.filter((each) => each.sentAtMs + each.tookMs > sinceMs).map(({ tookMs }) => tookMs))
