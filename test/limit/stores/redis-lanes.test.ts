// What becomes of corrections that cannot be sent, or whose answer comes late.

import { setImmediate } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { Ask } from '../../../src/limit/stores/redis-call.ts'
import { Lanes } from '../../../src/limit/stores/redis-lanes.ts'
import { QUOTA_SCRIPT } from '../../../src/limit/stores/redis-script.ts'
import { Subject } from '../../../src/limit/stores/redis-subjects.ts'
import { closeAfterEach } from '../../support/closing.ts'
import { demandOf, quotaOf } from '../../support/quotas.ts'
import { linksFor } from '../../support/redis-link.ts'
import { describeWithRedis, startRedis, startRelay, until } from '../../support/redis.ts'

const opened = closeAfterEach()
const { linkUp } = linksFor(opened)
const IN_FLIGHT = 4

describeWithRedis('corrections', () => {
  it('that go with requests which nobody waits for any more are told not to be made, others wait', async () => {
    const redis = opened(await startRedis())
    const relay = opened(await startRelay(redis.port))
    const link = await linkUp(relay.url, { deadlineMs: 60_000 })
    const why: string[] = []
    const lanes = new Lanes({
      link,
      script: link.script(QUOTA_SCRIPT),
      deadlineMs: 25,
      clock: Date.now,
      answered: (call, reply) =>
        call.read(
          reply,
          () => {},
          () => {},
        ),
      failed: (call, reason) =>
        call.fail(
          () => why.push(reason),
          () => {},
        ),
      late: () => {},
      never: () => {},
    })
    lanes.heard(link.shardOf(''), Date.now(), Date.now())
    const [quota, subject] = [quotaOf('hour', { limit: 100, window: '1h' }), new Subject('k')]
    const lane = lanes.of(subject)
    const ask = () => lane.hasRoom && lane.ask(new Ask(demandOf([quota], ['x']), [subject], () => {}), '')
    const done: [string, boolean][] = []
    const correct = (name: string) => lane.correct(quota, subject, 10, 0, (isDone) => void done.push([name, isDone]))
    relay.stall()
    for (let i = 0; i < IN_FLIGHT; i++) {
      ask()
      if (i === 0) correct('in flight')
      await setImmediate()
      await setImmediate()
    }
    ask()
    correct('not sent')
    await setImmediate()
    await setImmediate()
    correct('waiting')
    await until(() => why.length === IN_FLIGHT + 1, 'all that was asked to fail')
    expect(why).toEqual([...Array.from({ length: IN_FLIGHT }, () => 'late'), 'unasked'])
    expect(done).toEqual([['not sent', false]])
    relay.release()
    await until(() => done.length === 3, 'the answers')
    expect(done).toEqual([
      ['not sent', false],
      ['in flight', true],
      ['waiting', true],
    ])
    await lanes.close()
  })
})
