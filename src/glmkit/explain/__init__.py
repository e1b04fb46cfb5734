"""Why a blank was filled so, or a text labelled so: evidence as data, pages and pictures.

units         texts -> what is explained together: tokens that share a character, or the tokens of a word
rows          text, blanks and contents -> what the model reads, with each place's unit
questions     the same for a classification, in every pattern of its task
scoring       rows -> log-probabilities of contents, the one number that is explained
attribution   integrated gradients and ablation (captum): which context made the score
attention     attention maps, and their rollout
lens          what each layer would write; alternatives at each step
examples      what each example of a prompt adds
explaining    all of them together: `explain`, `explain_label`
results       `Explanation`: prints, becomes JSON, is saved
page, picture, fonts  the results as HTML and PNG
faithfulness  is an explanation true to the model? Deletion, insertion, comprehensiveness, sufficiency
"""
