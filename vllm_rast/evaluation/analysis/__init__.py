"""Why a mix works: token traces of a run's answers, and what they say."""
