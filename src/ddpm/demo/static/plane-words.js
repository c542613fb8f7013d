// What is seen, in one sentence.

const LEARNS = {
  eps: 'which noise was added to a point',
  x0: 'which clean point a noisy one was',
  v: 'v, a mixture of the noise and the clean point',
  u: 'the velocity with which data flow into noise',
  F: 'F, which EDM scales alike at every noise level',
};

const SCHEDULES = {
  cosine: 'The cosine schedule takes the signal away slowly at both ends.',
  linear: 'The linear schedule of DDPM destroys the data early: much of the way there is little but noise.',
  sigmoid: 'The sigmoid schedule is gentle at both ends, and quick between them.',
  edm: 'EDM adds noise to 80 times the data; F keeps what the network sees at one size, whatever the noise.',
  flow: 'A rectified flow mixes data and noise in a straight line, x = (1 − τ) x₀ + τ ε.',
};

const SAMPLERS = {
  ddpm: 'DDPM adds fresh noise at every step: the paths tremble, and what went wrong in earlier steps is forgotten.',
  ddim: 'DDIM draws no new noise: the same start leads to the same end, along a smooth path.',
  euler: 'Euler’s method follows the arrows in straight pieces; it is DDIM in other variables.',
  heun: 'Heun asks the network twice a step, before and after, and follows the bend of a path better.',
  'dpm++': 'DPM-Solver++ remembers the step before, so that fewer steps suffice.',
  'dpm++sde': 'This DPM-Solver++ draws fresh noise too: its paths tremble, as DDPM’s do.',
};

const PLACES = {
  moons: 'one of the two moons', spirals: 'one of the arms', rings: 'one of the rings', grid: 'one of the spots',
};

// `view`: request, phase, share, done, t, T, topic, points
export function sentence(view) {
  const { request, done, topic } = view;
  if (view.phase === 'few') {
    return 'Draw on the dark square, with the pointer or with arrow keys and space: these points will be the data.';
  }
  if (view.phase === 'drawing') {
    return 'Each point that you draw is an example; when you pause, a network is trained on them.';
  }
  if (view.phase === 'waiting') return 'Pure noise: a network is about to learn how it becomes data.';
  if (view.phase === 'training') {
    return view.share < 0.4
      ? `A tiny network learns to say ${LEARNS[request.target]}; the dots show where noise would end up by now.`
      : 'Always the same noise, carried by a network that has learned a little more: the dots find the shape.';
  }
  if (topic) return about(topic, request, done);
  const u = view.t / view.T;
  if (u > 0.93) return 'Nothing but noise: from here the arrows know no shape, and all point to the middle of the data.';
  if (u > 0.55) return 'Much noise: the arrows agree on a rough direction, and a dot could still become anything.';
  if (u > 0.2) {
    const place = PLACES[request.points] ?? 'one part of your drawing';
    return `Here it is decided: the arrows part, and each dot turns to ${place}.`;
  }
  if (u > 0.005) return 'Little noise is left: the arrows point straight at the data, and the dots settle there.';
  return result(request, done);
}

function about(topic, request, done) {
  const { steps, guidance, sampler } = request;
  if (topic === 'steps') {
    if (steps === 1) {
      return request.target === 'eps'
        ? 'One step: at t = T the noise is all there is, so that knowing it says nothing of the data, and the dots end at the edges.'
        : 'One step: the network’s first guess, which is the average of all that a dot could become.';
    }
    if (steps <= 4) return `${steps} steps are ${steps} straight lines: the dots cut corners and miss the shape by ${done.distance.toFixed(3)} on average.`;
    if (steps <= 15) return `${steps} steps bend with the field, and the dots come within ${done.distance.toFixed(3)} of the data.`;
    return `${steps} steps follow the field closely: ${done.nfe} calls of the network, and the dots within ${done.distance.toFixed(3)} of the data.`;
  }
  if (topic === 'guidance') {
    if (guidance === 0) return 'Guidance 0 ignores the class: each dot goes wherever the noise leads it.';
    if (guidance < 1) return 'Guidance below 1 follows the class only half-heartedly, so that some dots end between the classes.';
    if (guidance === 1) return 'Guidance 1 is the network as it was trained: each dot goes to its class.';
    if (guidance <= 3) return `Guidance ${guidance} exaggerates what the class changes: classes part early, and each is less varied.`;
    return `Guidance ${guidance} goes too far: each class shrinks to where no other is near, and the rest of the data is never reached.`;
  }
  if (topic === 'label') {
    return request.label === null
      ? 'All classes at once; the arrows are those of the network without a class.'
      : 'The same noise, and every dot asked to be of one class: the arrows are those of that class.';
  }
  if (topic === 'seed') return 'Other noise, other dots, the same shape.';
  if (topic === 'seen') return 'Circles are what the network takes each dot to be: averages at first, then points of the data.';
  if (topic === 'schedule') return SCHEDULES[request.schedule];
  if (topic === 'target') return `This network says ${LEARNS[request.target]}; from that the clean point follows, and each step.`;
  return SAMPLERS[sampler];
}

function result(request, done) {
  const steps = request.steps === 1 ? 'one step' : `${request.steps} steps`;
  return `After ${steps} the dots lie ${done.distance.toFixed(3)} from the data on average; the data lie ${done.fresh.toFixed(3)} from each other.`;
}
