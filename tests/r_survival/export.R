# What R's survival says of a synthetic cohort with ties and patients with two cases: Rscript tests/r_survival/export.R
# Writes cohort.csv, values.csv beside this file. Made with the version that values.csv names.
library(survival)
set.seed(7)
n <- 160
id <- rep(seq_len(n / 2), each = 2)
x1 <- round(rnorm(n), 4)
x2 <- round(0.5 * x1 + rnorm(n), 4)
x3 <- rbinom(n, 1, 0.4)
early <- rexp(n, exp(0.8 * x1 + 0.5 * x3) / 20)
time <- ceiling(pmin(early * ifelse(x1 > 0, early / 12 + 0.3, 1), runif(n, 5, 60)))
event <- as.integer(early * ifelse(x1 > 0, early / 12 + 0.3, 1) <= time & runif(n) < 0.9)
cohort <- data.frame(id, x1, x2, x3, time, event)
fit <- coxph(Surv(time, event) ~ x1 + x2 + x3, cohort, ties = "efron")
small <- coxph(Surv(time, event) ~ x1, cohort, ties = "efron")
robust <- coxph(Surv(time, event) ~ x1 + x2 + x3 + cluster(id), cohort, ties = "breslow")
drift <- cox.zph(fit, transform = "rank", terms = FALSE, global = FALSE)$table
ratio <- 2 * (fit$loglik[2] - small$loglik[2])
score <- cohort$x1 + 0.5 * cohort$x3
at <- c(10, 20, 30)
curve <- summary(survfit(Surv(time, event) ~ 1, cohort, conf.type = "log-log"), times = at)
harrell <- concordance(Surv(time, event) ~ score, cohort, reverse = TRUE)$concordance
uno <- concordance(Surv(time, event) ~ score, cohort, reverse = TRUE, timewt = "n/G2", ymax = 29.5)$concordance
groups <- survdiff(Surv(time, event) ~ x3, cohort)$chisq
censored <- quantile(survfit(Surv(time, 1 - event) ~ 1, cohort), 0.5)$quantile
# the area under the ROC curve is Wilcoxon's statistic over the pairs
auc <- wilcox.test(x1 ~ x3, cohort, exact = FALSE)$statistic / (sum(x3 == 0) * sum(x3 == 1))
values <- rbind(
  data.frame(what = "harrell_c", column = "score", value = harrell),
  data.frame(what = "uno_c", column = "score", value = uno),
  data.frame(what = "log_rank", column = "x3", value = groups),
  data.frame(what = "median_follow_up", column = "", value = unname(censored)),
  data.frame(what = "auc", column = "x1", value = unname(auc)),
  data.frame(what = "kaplan_meier", column = at, value = curve$surv),
  data.frame(what = "kaplan_meier_lower", column = at, value = curve$lower),
  data.frame(what = "kaplan_meier_upper", column = at, value = curve$upper),
  data.frame(what = "coefficient", column = names(coef(fit)), value = unname(coef(fit))),
  data.frame(what = "error", column = names(coef(fit)), value = sqrt(diag(vcov(fit)))),
  data.frame(what = "breslow_coefficient", column = names(coef(robust)), value = unname(coef(robust))),
  data.frame(what = "robust_error", column = names(coef(fit)), value = sqrt(diag(vcov(robust)))),
  data.frame(what = "ph_statistic", column = rownames(drift), value = drift[, "chisq"]),
  data.frame(what = "ph_p", column = rownames(drift), value = drift[, "p"]),
  data.frame(what = "dfbeta", column = rep(names(coef(fit)), each = n), value = c(residuals(fit, type = "dfbeta"))),
  data.frame(what = "likelihood_ratio", column = "x2 x3", value = ratio),
  data.frame(what = "version", column = "survival", value = as.numeric(substr(packageVersion("survival"), 1, 3)))
)
at <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
write.csv(cohort, file.path(at, "cohort.csv"), row.names = FALSE)
write.csv(values, file.path(at, "values.csv"), row.names = FALSE)
