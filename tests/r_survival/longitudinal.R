# Longitudinal ComBat of a synthetic cohort with up to four scans a patient, by lme4: Rscript tests/r_survival/longitudinal.R
# Writes longitudinal.csv, longitudinal_values.csv beside this file (lme4 1.1). The formulas are those of Beer et al.,
# NeuroImage 220, 117129 (2020), section 2.3, with the empirical Bayes estimates iterated until they stand still.
suppressMessages(library(lme4))
set.seed(31)
scans <- sample(1:4, 45, replace = TRUE)
patient <- rep(sprintf("P%02d", 1:45), scans)
n <- length(patient)
home <- sample(c("A", "B", "C"), 45, replace = TRUE, prob = c(0.5, 0.3, 0.2))[match(patient, unique(patient))]
site <- ifelse(runif(n) < 0.25, sample(c("A", "B", "C"), n, replace = TRUE), home)
age <- round(rnorm(n, 60, 9), 1)
at <- match(site, c("A", "B", "C"))
who <- match(patient, unique(patient))
between <- c(1, 2, 0.5, 0, 4, 1.5)
features <- sapply(1:6, function(v) {
  shift <- rnorm(3, c(0, 1.5, -1), 0.3)
  wide <- c(1, 1.6, 0.7) * exp(rnorm(3, 0, 0.15))
  round((10 * v + 0.03 * age + rnorm(45)[who] * between[v] + shift[at] + wide[at] * rnorm(n)) * 2^v, 5)
})
colnames(features) <- paste0("f", 1:6)
cohort <- data.frame(patient, site, age, features)

tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-13, maxfun = 1e5), calc.derivs = FALSE,
  check.conv.singular = "ignore")
harmonise <- function(fixed) {
  count <- as.vector(table(site))
  shift <- matrix(0, 3, 6)
  clean <- standard <- matrix(0, n, 6)
  sigma <- share <- level <- NULL
  for (v in 1:6) {
    model <- lmer(as.formula(paste("y ~ 0 + site", fixed, "+ (1 | patient)")), control = tight,
      data = data.frame(y = features[, v], site, age, patient))
    sigma[v] <- sigma(model)
    between <- as.data.frame(VarCorr(model))$vcov[1]
    share[v] <- between / (between + sigma[v]^2)
    of_site <- unname(fixef(model)[1:3])
    level[[v]] <- of_site - sum(of_site * count) / n
    clean[, v] <- predict(model) - level[[v]][at]
    standard[, v] <- (features[, v] - clean[, v]) / sigma[v]
  }
  after <- matrix(0, n, 6)
  for (i in 1:3) {
    Z <- standard[at == i, ]
    found <- gamma <- colMeans(Z)
    spread <- delta <- apply(Z, 2, var)
    tau2 <- var(found)
    rate <- (mean(spread)^3 + mean(spread) * var(spread)) / var(spread)
    shape <- (mean(spread)^2 + 2 * var(spread)) / var(spread)
    for (step in 1:2000) {
      gamma <- (nrow(Z) * tau2 * found + delta * mean(found)) / (nrow(Z) * tau2 + delta)
      delta <- (rate + 0.5 * colSums(sweep(Z, 2, gamma)^2)) / (nrow(Z) / 2 + shape - 1)
    }
    after[at == i, ] <- sweep(sweep(Z, 2, gamma), 2, sigma / sqrt(delta), "*") + clean[at == i, ]
  }
  alone <- scans[who] == 1 # of these the intercept is predicted from the one scan here too
  list(sigma = sigma, share = share, level = unlist(level), after = as.vector(t(after[alone, ])))
}
values <- do.call(rbind, lapply(list(c("", "plain"), c("+ age", "age")), function(of) {
  found <- harmonise(of[1])
  do.call(rbind, lapply(names(found), function(what) {
    data.frame(what = paste(of[2], what), value = found[[what]])
  }))
}))
at <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
write.csv(cohort, file.path(at, "longitudinal.csv"), row.names = FALSE, quote = FALSE)
write.csv(values, file.path(at, "longitudinal_values.csv"), row.names = FALSE)
